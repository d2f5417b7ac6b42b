/**
 * Which replica does what, and when. Requests wait here, clients in turn, until a replica has room: least-loaded routing,
 * and the requests of one prompt at one replica as long as that is not far busier than the others.
 */

import { fail } from "../../errors.ts";
import { once } from "../../once.ts";
import type { Priority, QueueReason } from "../engine.ts";
import { createFairQueue, type Waiting } from "../fair-queue.ts";
import { tooManyWaiting } from "../overload.ts";
import { endedBy } from "./failure.ts";
import {
  AFFINITY_TOKENS,
  MAX_ACTIVE_PER_REPLICA,
  MAX_AFFINITIES,
  MAX_CLIENT_SHARE,
  MAX_WAITING,
  MAX_WAITING_PER_CLIENT,
  WAIT_FOR_REPLICA_MS,
} from "./limits.ts";
import type { Replica, WorkKind } from "./replica.ts";

export interface LeaseRequest {
  client: string;
  priority: Priority;
  kind: WorkKind;
  sequences: number;
  /** (P) the beginning of what is to be computed: it belongs where it was computed before. */
  prefix: Int32Array;
  /** Where this request failed before; taken again only if there is no other. */
  avoid: ReadonlySet<Replica>;
  signal: AbortSignal | undefined;
  queued?(place: { position: number; reason: QueueReason }): void;
}

export interface Lease {
  replica: Replica;
  release(): void;
}

export interface Pool {
  readonly replicas: readonly Replica[];
  /** Throws `queue_full`, `overloaded`, `backend_unavailable` (no replica came back in time), `cancelled`. */
  lease(request: LeaseRequest): Promise<Lease>;
  /** Something changed: a replica came back. */
  wake(): void;
  readonly waiting: number;
  /** Everything that waits ends with this error. */
  close(error: Error): void;
}

interface Item extends Waiting {
  request: LeaseRequest;
  take(lease: Lease): void;
  refuse(error: Error): void;
  /** Whether no replica is there for it: for how long that may last has an end. */
  strand(isStranded: boolean): void;
  told: { position: number; reason: QueueReason } | null;
}

/** A replica that has the prefix is worth so much more work ahead than another: a prompt costs as much as some tokens. */
const AFFINITY_FACTOR = 2;

export function createPool(replicas: readonly Replica[], now: () => number): Pool {
  const queue = createFairQueue<Item>();
  /** Prefix → the replica that computed it last. */
  const homes = new Map<string, Replica>();
  const activeOf = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;

  function place(request: LeaseRequest): Replica | QueueReason {
    const { kind, sequences } = request;
    const up = replicas.filter((replica) => replica.state() === "up");
    if (up.length === 0) return "backend";
    const free = up.filter((replica) => replica.hasRoom(sequences));
    const others = free.filter((replica) => !request.avoid.has(replica));
    const candidates = others.length > 0 ? others : free;
    if (candidates.length === 0) return "slots";
    const fastest = Math.min(...candidates.map((replica) => replica.speed(kind) ?? Infinity));
    // Until it has been measured a replica counts as one of the fastest: it gets its share, and then it is known.
    const assumed = fastest < Infinity ? fastest : 1;
    const cost = (replica: Replica): number => (replica.active + sequences) * (replica.speed(kind) ?? assumed);
    const best = candidates.reduce((a, b) => (cost(b) < cost(a) ? b : a));
    const home = homes.get(prefixOf(request.prefix));
    return home && candidates.includes(home) && cost(home) <= AFFINITY_FACTOR * cost(best) ? home : best;
  }

  /** While others wait, nobody has more than a share of the slots. */
  function overShare({ client }: Item, others: boolean): boolean {
    const slots = replicas.length * MAX_ACTIVE_PER_REPLICA;
    return others && (activeOf.get(client) ?? 0) >= slots * MAX_CLIENT_SHARE;
  }

  function pump(): void {
    let position = 0;
    let stuck: QueueReason | null = null;
    const items = queue.inOrder();
    const clients = new Set(items.map(({ client }) => client));
    for (const item of items) {
      let reason: QueueReason | null = stuck;
      if (!reason && overShare(item, clients.size > 1)) reason = "client_limit";
      if (!reason) {
        const found = place(item.request);
        if (typeof found !== "string") {
          queue.remove(item, true);
          item.take(occupy(found, item.request));
          continue;
        }
        // Whoever cannot begin keeps the place ahead of those behind: a large group is not overtaken for ever.
        reason = found;
        stuck = found === "slots" ? "turn" : found;
      }
      tell(item, { position: ++position, reason });
    }
    schedule(stuck === "backend");
  }

  function tell(item: Item, place: { position: number; reason: QueueReason }): void {
    if (item.told?.position === place.position && item.told.reason === place.reason) return;
    item.told = place;
    item.strand(place.reason === "backend");
    item.request.queued?.(place);
  }

  function occupy(replica: Replica, { client, sequences, prefix }: LeaseRequest): Lease {
    replica.active += sequences;
    activeOf.set(client, (activeOf.get(client) ?? 0) + sequences);
    remember(prefixOf(prefix), replica);
    const release = once(() => {
      replica.active -= sequences;
      const left = (activeOf.get(client) ?? 0) - sequences;
      if (left > 0) activeOf.set(client, left);
      else activeOf.delete(client);
      pump();
    });
    return { replica, release };
  }

  function remember(prefix: string, replica: Replica): void {
    homes.delete(prefix);
    homes.set(prefix, replica);
    if (homes.size > MAX_AFFINITIES) homes.delete(homes.keys().next().value as string);
  }

  /** A pause ends by itself, perhaps since it was looked at (`missed`); nobody else would look again. */
  function schedule(missed: boolean): void {
    clearTimeout(timer);
    if (queue.size === 0) return;
    const awaited = missed ? ["paused", "up"] : ["paused"];
    const next = Math.min(
      ...replicas.map((replica) => (awaited.includes(replica.state()) ? replica.availableAt() : Infinity)),
    );
    if (next < Infinity) timer = setTimeout(pump, Math.max(1, next - now())).unref();
  }

  return {
    replicas,
    wake: pump,
    get waiting() {
      return queue.size;
    },
    lease(request) {
      if (request.signal?.aborted) return Promise.reject(endedBy(request.signal));
      if (queue.size === 0) {
        const found = place(request);
        if (typeof found !== "string") return Promise.resolve(occupy(found, request));
      }
      if (queue.countOf(request.client) >= MAX_WAITING_PER_CLIENT) return Promise.reject(tooManyWaiting("client"));
      if (queue.size >= MAX_WAITING) return Promise.reject(tooManyWaiting("server"));
      return new Promise<Lease>((resolve, reject) => {
        const item: Item = {
          client: request.client,
          priority: request.priority,
          request,
          told: null,
          take(lease) {
            settle();
            resolve(lease);
          },
          strand(isStranded) {
            if (!isStranded) endDeadline();
            else deadline ??= setTimeout(() => leave(unavailable(replicas, now())), WAIT_FOR_REPLICA_MS).unref();
          },
          refuse(error) {
            settle();
            queue.remove(item, false);
            reject(error);
          },
        };
        // Those behind it may fit where it did not.
        const leave = (error: Error): void => {
          item.refuse(error);
          pump();
        };
        const cancel = (): void => leave(endedBy(request.signal));
        // A queue that moves slowly is one thing; one that cannot move at all is no queue.
        let deadline: NodeJS.Timeout | undefined;
        const endDeadline = (): void => {
          clearTimeout(deadline);
          deadline = undefined;
        };
        const settle = (): void => {
          endDeadline();
          request.signal?.removeEventListener("abort", cancel);
        };
        request.signal?.addEventListener("abort", cancel, { once: true });
        queue.push(item);
        pump();
      });
    },
    close(error) {
      clearTimeout(timer);
      for (const item of queue.inOrder()) item.refuse(error);
    },
  };
}

function prefixOf(ids: Int32Array): string {
  const start = ids.subarray(0, AFFINITY_TOKENS);
  return Buffer.from(start.buffer, start.byteOffset, start.byteLength).toString("latin1");
}

export function unavailable(replicas: readonly Replica[], now: number): Error {
  const names = replicas.map(({ connection }) => connection.where).join(", ");
  const next = Math.min(...replicas.map((replica) => replica.availableAt()));
  return fail("backend_unavailable", `no server of this model answers (${names}); try again shortly`, {
    retryAfterSeconds: Math.max(1, Math.ceil((next - now) / 1000)),
  });
}
