/** The durable queue: each operation is one statement in a file of its own; here they are bound to a database. */
import type { Db } from "../db/database.ts";
import type { Page, PageQuery } from "../db/records.ts";
import type { ErrorBody } from "../errors.ts";
import { type Bell, createBell } from "./bell.ts";
import {
  addCheckpoint,
  addLooseCheckpoint,
  bestCheckpoint,
  findCheckpoint,
  lastCheckpoint,
  listCheckpoints,
  removeCheckpoint,
} from "./checkpoints.ts";
import { type Claim, claim } from "./claim.ts";
import { counts, type JobCount } from "./counts.ts";
import { append, listEvents } from "./events.ts";
import { failJob, finish, type HandlerResult } from "./finish.ts";
import { type Following, follow } from "./follow.ts";
import { heartbeat } from "./heartbeat.ts";
import { insert } from "./insert.ts";
import { type MetricPoint, type MetricsQuery, readMetrics, writeMetrics } from "./metrics.ts";
import { needing } from "./needing.ts";
import { writeProgress } from "./progress.ts";
import { find, get, list } from "./read.ts";
import type {
  CheckpointRecord,
  JobEvent,
  JobProgress,
  JobQuery,
  JobRecord,
  Lease,
  NewCheckpoint,
  NewEvent,
  NewJob,
} from "./records.ts";
import { cancel, pause, resume, wrapUp } from "./request.ts";
import { giveBack, giveUp, sweep } from "./requeue.ts";

/** For those who run jobs. All but `claim` and `sweep` throw LeaseLost where the lease is not the job's current one. */
export interface HeldJobs {
  claim(how: Claim): Promise<JobRecord | undefined>;
  heartbeat(lease: Lease, leaseMs: number): Promise<JobRecord>;
  append(lease: Lease, events: readonly NewEvent[]): Promise<JobRecord>;
  writeProgress(lease: Lease, progress: JobProgress): Promise<JobRecord>;
  writeMetrics(lease: Lease, step: number, values: Readonly<Record<string, number>>): Promise<JobRecord>;
  addCheckpoint(lease: Lease, checkpoint: NewCheckpoint): Promise<JobRecord>;
  finish(lease: Lease, result: HandlerResult): Promise<JobRecord>;
  fail(lease: Lease, error: ErrorBody): Promise<JobRecord>;
  giveBack(lease: Lease): Promise<JobRecord>;
  giveUp(lease: Lease, message: string): Promise<JobRecord>;
  sweep(options?: { exclusive?: boolean }): Promise<JobRecord[]>;
  bell: Bell;
}

/** For those who order jobs and watch them. */
export interface JobQueue extends HeldJobs {
  insert(job: NewJob): Promise<JobRecord>;
  find(id: string): Promise<JobRecord | undefined>;
  /** As `find`; throws `not_found`. */
  get(id: string): Promise<JobRecord>;
  list(query: JobQuery): Promise<Page<JobRecord>>;
  pause(id: string): Promise<JobRecord>;
  cancel(id: string): Promise<JobRecord>;
  resume(id: string): Promise<JobRecord>;
  wrapUp(seen: JobRecord, progress: JobProgress): Promise<JobRecord | undefined>;
  events(id: string, query: { after: number; limit: number }): Promise<JobEvent[]>;
  follow(id: string, how: Following): AsyncGenerator<JobEvent, void, void>;
  metrics(id: string, query?: MetricsQuery): Promise<Record<string, MetricPoint[]>>;
  addLooseCheckpoint(checkpoint: NewCheckpoint): Promise<CheckpointRecord>;
  findCheckpoint(id: string): Promise<CheckpointRecord | undefined>;
  lastCheckpoint(jobId: string): Promise<CheckpointRecord | undefined>;
  bestCheckpoint(jobId: string): Promise<CheckpointRecord | undefined>;
  listCheckpoints(query: PageQuery & { jobId?: string | undefined }): Promise<Page<CheckpointRecord>>;
  removeCheckpoint(id: string): Promise<boolean>;
  /** Unfinished jobs in whose configuration, or in what they have made so far, this text stands. */
  needing(text: string): Promise<string[]>;
  counts(): Promise<JobCount[]>;
}

export function createJobQueue(db: Db, bell: Bell = createBell()): JobQueue {
  const deps = { db, bell };
  return {
    bell,
    claim: (how) => claim(deps, how),
    heartbeat: (lease, leaseMs) => heartbeat(deps, lease, leaseMs),
    append: (lease, events) => append(deps, lease, events),
    writeProgress: (lease, progress) => writeProgress(deps, lease, progress),
    writeMetrics: (lease, step, values) => writeMetrics(deps, lease, step, values),
    addCheckpoint: (lease, checkpoint) => addCheckpoint(deps, lease, checkpoint),
    finish: (lease, result) => finish(deps, lease, result),
    fail: (lease, error) => failJob(deps, lease, error),
    giveBack: (lease) => giveBack(deps, lease),
    giveUp: (lease, message) => giveUp(deps, lease, message),
    sweep: (options) => sweep(deps, options),
    insert: (job) => insert(deps, job),
    find: (id) => find(deps, id),
    get: (id) => get(deps, id),
    list: (query) => list(deps, query),
    pause: (id) => pause(deps, id),
    cancel: (id) => cancel(deps, id),
    resume: (id) => resume(deps, id),
    wrapUp: (seen, progress) => wrapUp(deps, seen, progress),
    events: (id, query) => listEvents(deps, id, query),
    follow: (id, how) => follow(deps, id, how),
    metrics: (id, query = {}) => readMetrics(deps, id, query),
    addLooseCheckpoint: (checkpoint) => addLooseCheckpoint(deps, checkpoint),
    findCheckpoint: (id) => findCheckpoint(deps, id),
    lastCheckpoint: (jobId) => lastCheckpoint(deps, jobId),
    bestCheckpoint: (jobId) => bestCheckpoint(deps, jobId),
    listCheckpoints: (query) => listCheckpoints(deps, query),
    removeCheckpoint: (id) => removeCheckpoint(deps, id),
    needing: (text) => needing(deps, text),
    counts: () => counts(deps),
  };
}
