/** One server of a pool: how busy, how fast and how well it is. */
import type { Connection } from "./connection.ts";
import { isDenial, type RemoteFailure } from "./failure.ts";
import {
  DEFAULT_RETRY_AFTER_MS,
  FAILURES_TO_OPEN,
  FIRST_OPEN_MS,
  MAX_ACTIVE_PER_REPLICA,
  MAX_OPEN_MS,
} from "./limits.ts";

/** Work of different kinds takes different times: a token of a stream, a text to be scored. */
export type WorkKind = "sample" | "score";

/** "up": takes requests; "paused": it asked to be left alone for a while; "open": its circuit breaker is open. */
export type ReplicaState = "up" | "paused" | "open";

export interface Replica {
  readonly connection: Connection;
  /** Sequences under way here. */
  active: number;
  state(): ReplicaState;
  /** Whether so many more sequences may begin; one that is idle takes a group of any size. */
  hasRoom(sequences: number): boolean;
  /** Milliseconds per token (or text) of late; undefined until something has been measured. */
  speed(kind: WorkKind): number | undefined;
  /** When it may be used again, if nothing is known earlier. */
  availableAt(): number;
  /** A request ended well; `ms` per token or text. */
  succeeded(kind: WorkKind, ms: number): void;
  /** Counts against it unless it only refused; true: this opened the breaker. */
  failed(failure: RemoteFailure): boolean;
  /** A trial while the breaker was open went well, or not. */
  tried(well: boolean): void;
}

/** Weight of the newest observation: the last dozen or so decide. */
const NEWEST = 0.15;

export function createReplica(connection: Connection, now: () => number): Replica {
  const speeds: Record<WorkKind, number | undefined> = { sample: undefined, score: undefined };
  let failures = 0;
  let pausedUntil = 0;
  let openUntil: number | null = null;
  let openMs = 0;

  function open(): void {
    openMs = Math.min(openMs === 0 ? FIRST_OPEN_MS : openMs * 2, MAX_OPEN_MS);
    openUntil = now() + openMs;
  }

  const replica: Replica = {
    connection,
    active: 0,
    state: () => (openUntil !== null ? "open" : now() < pausedUntil ? "paused" : "up"),
    hasRoom: (sequences) => replica.active === 0 || replica.active + sequences <= MAX_ACTIVE_PER_REPLICA,
    speed: (kind) => speeds[kind],
    availableAt: () => Math.max(openUntil ?? 0, pausedUntil),
    succeeded(kind, ms) {
      failures = 0;
      const before = speeds[kind];
      speeds[kind] = before === undefined ? ms : before + NEWEST * (ms - before);
    },
    failed(failure) {
      const { kind, retryAfterMs } = failure;
      if (kind === "refused" && !isDenial(failure)) return false;
      if (kind === "busy") {
        pausedUntil = Math.max(pausedUntil, now() + (retryAfterMs ?? DEFAULT_RETRY_AFTER_MS));
        return false;
      }
      failures++;
      // Several requests fail together where one server dies: the breaker opens once.
      if (failures < FAILURES_TO_OPEN || openUntil !== null) return false;
      open();
      return true;
    },
    tried(well) {
      if (!well) {
        open();
        return;
      }
      failures = 0;
      openUntil = null;
      openMs = 0;
    },
  };
  return replica;
}
