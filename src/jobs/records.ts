/** What the queue keeps, as the rest of the program sees it. */
import type { PageQuery } from "../db/records.ts";
import type { ErrorBody } from "../errors.ts";

/** `queued → running ⇄ paused → succeeded | failed | cancelled` */
export type JobStatus = "queued" | "running" | "paused" | FinalStatus;
export type FinalStatus = "succeeded" | "failed" | "cancelled";

/** A request to the one who runs the job. */
export type Wanted = "pause" | "cancel";

/** Whoever holds it may write to the job; of two the one with the higher token. */
export interface Lease {
  jobId: string;
  token: number;
}

export interface JobRecord {
  id: string;
  kind: string;
  status: JobStatus;
  /** The request with every default filled in. */
  config: unknown;
  configHash: string;
  seed: number;
  metadata: Record<string, string>;
  progress: JobProgress | null;
  /** The last step that this attempt reported; null: it has not come to its steps. */
  attemptStep: number | null;
  /** The latest value of each metric; null was no finite number. */
  metrics: Record<string, number | null>;
  result: unknown;
  error: ErrorBody | null;
  /** Only while it runs. */
  wanted: Wanted | null;
  leaseToken: number;
  leaseOwner: string | null;
  leaseUntil: Date | null;
  /** How often it was claimed. */
  attempts: number;
  /** How often in a row it lost its worker at the same place. */
  crashes: number;
  /** That place: the `attemptStep` of the attempt that was lost last. */
  crashStep: number | null;
  /** Number of its last event. */
  lastSeq: number;
  createdAt: Date;
  startedAt: Date | null;
  finishedAt: Date | null;
}

export interface NewJob {
  /** `tjob_…`, `djob_…` */
  id: string;
  /** Which handler runs it. */
  kind: string;
  config: unknown;
  configHash: string;
  seed: number;
  metadata?: Record<string, string> | undefined;
}

export interface JobQuery extends PageQuery {
  kinds?: readonly string[] | undefined;
  status?: JobStatus | undefined;
  /** All of these pairs. */
  metadata?: Record<string, string> | undefined;
}

/** Kept as it is; `step`, a whole number, also tells whether a job that keeps losing its worker does so at one place. */
export interface JobProgress {
  step: number;
  [field: string]: unknown;
}

export interface NewEvent {
  /** `job.sample`, `job.warning`, … */
  type: string;
  data: unknown;
}

export interface JobEvent extends NewEvent {
  jobId: string;
  /** 1, 2, 3, … within the job. */
  seq: number;
  at: Date;
}

export interface CheckpointRecord {
  id: string;
  /** null: saved by a training session. */
  jobId: string | null;
  step: number;
  kind: string;
  /** Key of the files in the artefact store. */
  artifact: string;
  weightsHash: string;
  config: unknown;
  isBest: boolean;
  createdAt: Date;
  deletedAt: Date | null;
}

export interface NewCheckpoint {
  /** `ckpt_…` */
  id: string;
  step: number;
  kind: string;
  artifact: string;
  weightsHash: string;
  config: unknown;
  /** The best of its job so far: takes the mark from the one that had it. */
  isBest?: boolean | undefined;
}
