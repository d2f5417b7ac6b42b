/** One piece of work at one replica after another until it is done. */
import { setTimeout as sleep } from "node:timers/promises";
import type { AdapterFiles } from "../../model/checkpoint.ts";
import { asPreceptorError, endedBy, isDenial, RemoteFailure } from "./failure.ts";
import { FIRST_BACKOFF_MS, MAX_ATTEMPTS, MAX_BACKOFF_MS, MAX_RETRY_AFTER_MS } from "./limits.ts";
import type { LeaseRequest } from "./pool.ts";
import type { Remote } from "./remote.ts";
import type { Replica } from "./replica.ts";

export interface AttemptRequest extends Omit<LeaseRequest, "avoid" | "sequences"> {
  adapter: AdapterFiles | null;
  /** Sequences it takes now; read before every attempt. */
  sequences: () => number;
  /** Anything that a failed attempt has brought forward; while it grows, nothing has been tried in vain. */
  progress?: () => number;
}

export interface Place {
  replica: Replica;
  /** The name to ask for: the model's, or the adapter's. */
  model: string;
}

/**
 * Runs `work` until it succeeds: after a failure at another replica at once, and where there is no other after a pause. It must
 * be able to begin again, and go on where it was. Throws `backend_*` and `overloaded` in the server's own words, and what `work`
 * throws beside `RemoteFailure`.
 */
export async function attempt<T>(
  remote: Remote,
  request: AttemptRequest,
  work: (place: Place) => Promise<T>,
): Promise<T> {
  const avoid = new Set<Replica>();
  const forgetful = new Set<Replica>();
  let reached = request.progress?.() ?? 0;
  for (let tries = 1; ; tries++) {
    const lease = await remote.pool.lease({ ...request, sequences: request.sequences(), avoid });
    const { replica } = lease;
    const { where } = replica.connection;
    const event = { model: remote.options.name, where } as const;
    let failure: RemoteFailure;
    let lostAdapter = false;
    try {
      remote.observe({ ...event, type: "request", kind: request.kind });
      return await at(remote, replica, request, work);
    } catch (error) {
      if (request.signal?.aborted) throw endedBy(request.signal);
      if (!(error instanceof RemoteFailure)) throw error;
      failure = error;
      // A server that was restarted has lost its adapters; that it does not know the name is then no refusal.
      lostAdapter = failure.status === 404 && request.adapter !== null && !forgetful.has(replica);
      // Before the place is given back: whoever waits must not be sent to what has just failed.
      if (lostAdapter) {
        forgetful.add(replica);
        remote.adapters(replica).forget(request.adapter!);
      } else if (replica.failed(failure)) {
        remote.observe({ ...event, type: "opened", message: failure.message });
        remote.opened(replica);
      }
    } finally {
      lease.release();
    }
    const progress = request.progress?.() ?? 0;
    if (progress > reached) tries = 1;
    reached = progress;
    avoid.add(replica);
    const elsewhere = remote.pool.replicas.some((other) => other.state() === "up" && !avoid.has(other));
    const soon = remote.now() + MAX_RETRY_AFTER_MS;
    const another = remote.pool.replicas.some(
      (other) => other !== replica && other.state() !== "open" && other.availableAt() <= soon,
    );
    const tooLong = !another && (failure.retryAfterMs ?? 0) > MAX_RETRY_AFTER_MS;
    const hopeful = failure.kind !== "refused" || (isDenial(failure) && elsewhere);
    const retried = lostAdapter || (hopeful && !tooLong && tries < MAX_ATTEMPTS);
    remote.observe({ ...event, type: "failure", failure: failure.kind, message: failure.message, retried });
    if (!retried) throw asPreceptorError(failure, where);
    if (elsewhere || lostAdapter) continue;
    avoid.clear();
    await pause(tries, request.signal);
  }
}

async function at<T>(
  remote: Remote,
  replica: Replica,
  { adapter, signal }: AttemptRequest,
  work: (place: Place) => Promise<T>,
): Promise<T> {
  if (!adapter) return work({ replica, model: remote.options.name });
  const { name, release } = await remote.adapters(replica).use(adapter, signal);
  try {
    return await work({ replica, model: name });
  } finally {
    release();
  }
}

/** Doubling, with jitter, so that many requests that failed together do not knock in step. */
async function pause(tries: number, signal: AbortSignal | undefined): Promise<void> {
  const ms = Math.min(FIRST_BACKOFF_MS * 2 ** (tries - 1), MAX_BACKOFF_MS) * (0.5 + Math.random());
  await sleep(ms, undefined, signal ? { signal } : {}).catch(() => {
    throw endedBy(signal);
  });
}
