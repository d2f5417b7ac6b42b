import { setTimeout as delay } from "node:timers/promises";
import { createWaker } from "./bell.ts";
import { isAway } from "./fenced.ts";
import { type Hold, holdJob } from "./hold.ts";
import { HEARTBEAT_MS, LEASE_MS, LeaseLost } from "./lease.ts";
import type { HeldJobs } from "./queue.ts";
import type { JobRecord } from "./records.ts";
import { type JobHandler, type RunnerLog, runJob } from "./run-job.ts";

/** How late a job that another process ordered begins; costs an idle worker two small statements as often. */
export const POLL_MS = 1_000;
/** A handler looks at its signal between pieces of work of a second or so; the rest is for the last write. */
export const STOP_GRACE_MS = 10_000;

export interface RunnerDeps {
  queue: HeldJobs;
  /** By kind; other kinds are left to other workers. */
  handlers: Readonly<Record<string, JobHandler>>;
  /** Shown to people as the one who runs a job: host and process. */
  workerId: string;
  log: RunnerLog;
  /** Milliseconds of a clock that never jumps: `performance.now`. */
  now: () => number;
  /** Jobs at a time; default 1, since one fills the machine. */
  concurrency?: number | undefined;
  /** Nobody else uses the database, so what runs at the start belongs to a worker that is gone. */
  exclusive?: boolean | undefined;
  leaseMs?: number | undefined;
  heartbeatMs?: number | undefined;
  pollMs?: number | undefined;
  stopGraceMs?: number | undefined;
}

export interface JobRunner {
  /** Ids of the jobs that run here. */
  running(): string[];
  /** Claims no more, aborts what runs and gives it back. May be called twice. */
  stop(): Promise<void>;
}

/** Starts a worker: it claims jobs and runs them until it is stopped. */
export function createJobRunner(deps: RunnerDeps): JobRunner {
  const { queue, handlers, workerId, log, now } = deps;
  const { concurrency = 1, leaseMs = LEASE_MS, heartbeatMs = HEARTBEAT_MS } = deps;
  const { pollMs = POLL_MS, stopGraceMs = STOP_GRACE_MS } = deps;
  const kinds = Object.keys(handlers);
  const ending = new AbortController();
  const underWay = new Map<Hold, Promise<void>>();
  const waker = createWaker(queue.bell, "queued");
  let exclusive = deps.exclusive ?? false;
  let away = false;

  async function look(): Promise<void> {
    for (const job of await queue.sweep({ exclusive })) {
      log.warn({ job: job.id, status: job.status, crashes: job.crashes }, "a job's worker was gone");
    }
    exclusive = false;
    while (underWay.size < concurrency && !ending.signal.aborted) {
      const claimedAt = now();
      const job = await queue.claim({ owner: workerId, kinds, leaseMs });
      if (!job) break;
      // The answer may have come after the end.
      if (ending.signal.aborted) await queue.giveBack({ jobId: job.id, token: job.leaseToken });
      else begin(job, claimedAt);
    }
  }

  function begin(job: JobRecord, claimedAt: number): void {
    const hold = holdJob({ queue, now, leaseMs, heartbeatMs, log }, job, claimedAt);
    const run = runJob({ queue, handler: handlers[job.kind]!, log, ending: ending.signal }, job, hold);
    const done = run.finally(() => {
      underWay.delete(hold);
      // There is a place again.
      queue.bell.ring("queued");
    });
    underWay.set(hold, done);
  }

  async function loop(): Promise<void> {
    while (!ending.signal.aborted) {
      try {
        await look();
        if (away) log.info({}, "the job queue's database is back");
        away = false;
      } catch (error) {
        // Said once, not every second.
        if (!isAway(error)) log.error({ err: error }, "looking for jobs failed");
        else if (!away) log.warn({ err: error }, "the job queue's database is away");
        away = isAway(error);
      }
      await waker.wait(pollMs, ending.signal);
    }
  }

  const looping = loop();

  async function stop(): Promise<void> {
    ending.abort(new Error("the server ends"));
    const grace = new AbortController();
    const settled = looping.then(() => Promise.all(underWay.values()));
    await Promise.race([settled, delay(stopGraceMs, undefined, { signal: grace.signal })]).finally(() => grace.abort());
    waker.stop();
    await Promise.all([...underWay.keys()].map(abandon));
  }

  /** It did not stop in time, or the database is away. Whatever it still writes is refused. */
  async function abandon(hold: Hold): Promise<void> {
    const { jobId } = hold.lease;
    log.warn({ job: jobId }, "a job did not stop in time; it is given back as it is");
    hold.lose(new LeaseLost(hold.lease, "the server ends"));
    await queue.giveBack(hold.lease).catch((error: unknown) => {
      log.warn({ job: jobId, err: error }, "a job could not be given back; it is taken up when its lease runs out");
    });
  }

  let stopping: Promise<void> | undefined;
  return {
    running: () => [...underWay.keys()].map((hold) => hold.lease.jobId),
    stop: () => (stopping ??= stop()),
  };
}
