import { held, holds, leaseEnd } from "./lease.ts";
import type { JobRecord, Lease } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/** Shows that the holder lives: the lease begins anew. Throws LeaseLost. */
export async function heartbeat(deps: JobsDb, lease: Lease, leaseMs: number): Promise<JobRecord> {
  const rows = await transition(deps, { where: holds(lease), set: { leaseUntil: leaseEnd(leaseMs) } });
  return held(rows, lease);
}
