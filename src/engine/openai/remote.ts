import type { RemoteOptions } from "../engine.ts";
import type { RemoteAdapters } from "./adapters.ts";
import type { FailureKind } from "./failure.ts";
import type { Pool } from "./pool.ts";
import type { Profile } from "./profile.ts";
import type { Replica } from "./replica.ts";

/** A pool of servers with everything that is known about them: what requests are made with. */
export interface Remote {
  readonly options: RemoteOptions;
  readonly pool: Pool;
  /** What all replicas can do; replaced when they have been probed anew. */
  profile: Profile;
  adapters(replica: Replica): RemoteAdapters;
  observe(event: RemoteEvent): void;
  /** The breaker of a replica has just opened: somebody must try it later. */
  opened(replica: Replica): void;
  /** A server named what it runs (`system_fingerprint`): where that changes it is looked at anew. */
  fingerprint(replica: Replica, value: string): void;
  readonly now: () => number;
}

/** Tokens that prompt and answer may have together; Infinity where nobody says. */
export function contextLengthOf({ options, profile }: Pick<Remote, "options" | "profile">): number {
  return Math.min(options.contextLength ?? Infinity, profile.contextLength ?? Infinity);
}

/** For metrics and the log. */
export type RemoteEvent = { model: string; where: string } & (
  | { type: "request"; kind: "sample" | "score" }
  /** A request failed at this replica; `retried` tells whether it goes on elsewhere or later. */
  | { type: "failure"; failure: FailureKind; message: string; retried: boolean }
  /** Sequences that had begun at another replica go on here, from the tokens they had. */
  | { type: "resumed"; sequences: number }
  | { type: "opened"; message: string }
  | { type: "closed" }
  /** Probed anew; `differs`: it serves other weights, or can do other things, than before. */
  | { type: "probed"; differs: string | null }
);
