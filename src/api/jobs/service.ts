/** What callers may do with a job of any kind, once it is there. */
import { fail } from "../../errors.ts";
import { unixSeconds } from "../../http/schemas.ts";
import type { JobQueue } from "../../jobs/queue.ts";
import type { JobEvent, JobRecord } from "../../jobs/records.ts";
import type { JobEventResource, JobMetricsResource, ListJobsQuery } from "./schemas.ts";

export interface JobKind<Resource> {
  /** Of the queue; other kinds have routes of their own. */
  kinds: readonly string[];
  /** Of the resource: `training.job`. */
  object: string;
  /** In words, and where all of them are listed. */
  noun: string;
  base: string;
  toResource(job: JobRecord): Resource;
}

export interface JobService<Resource> {
  /** Throws `not_found`. */
  find(id: string): Promise<JobRecord>;
  get(id: string): Promise<Resource>;
  list(query: JobListQuery): Promise<{ data: Resource[]; hasMore: boolean }>;
  cancel(id: string): Promise<Resource>;
  pause(id: string): Promise<Resource>;
  resume(id: string): Promise<Resource>;
  events(id: string, query: { after: number; limit: number }): Promise<{ data: JobEventResource[]; hasMore: boolean }>;
  /** Sends events after a number, then live ones, until the terminal one. */
  follow(
    id: string,
    after: number,
    signal: AbortSignal,
    send: (event: JobEventResource) => Promise<void>,
  ): Promise<void>;
  metrics(
    id: string,
    query: { names?: string[] | undefined; every: number; after?: number | undefined },
  ): Promise<JobMetricsResource>;
}

export interface JobListQuery extends Omit<ListJobsQuery, "metadata"> {
  metadata?: Record<string, string> | undefined;
  /** Some of the kinds only. */
  kinds?: readonly string[] | undefined;
}

export function createJobService<Resource>(
  queue: JobQueue,
  { kinds, object, noun, base, toResource }: JobKind<Resource>,
): JobService<Resource> {
  async function find(id: string): Promise<JobRecord> {
    const job = await queue.find(id);
    if (job && kinds.includes(job.kind)) return job;
    throw fail("not_found", `there is no such ${noun}; GET ${base} lists all`);
  }

  const request =
    (verb: "cancel" | "pause" | "resume") =>
    async (id: string): Promise<Resource> => {
      await find(id);
      return toResource(await queue[verb](id));
    };

  const toEvent = ({ seq, type, data, at }: JobEvent): JobEventResource => ({
    id: String(seq),
    object: `${object}.event`,
    type,
    sequence_number: seq,
    created_at: unixSeconds(at),
    data,
  });

  return {
    find,
    get: async (id) => toResource(await find(id)),
    async list({ kinds: some = kinds, ...query }) {
      const { rows, hasMore } = await queue.list({ ...query, kinds: some });
      return { data: rows.map(toResource), hasMore };
    },
    cancel: request("cancel"),
    pause: request("pause"),
    resume: request("resume"),
    async events(id, { after, limit }) {
      await find(id);
      const rows = await queue.events(id, { after, limit: limit + 1 });
      return { data: rows.slice(0, limit).map(toEvent), hasMore: rows.length > limit };
    },
    async follow(id, after, signal, send) {
      await find(id);
      for await (const event of queue.follow(id, { after, signal })) await send(toEvent(event));
    },
    async metrics(id, query) {
      await find(id);
      return { object: `${object}.metrics`, job: id, data: await queue.metrics(id, query) };
    },
  };
}

/** The fields of `jobFields`. */
export function commonFields(job: JobRecord) {
  const at = (date: Date | null): number | null => date && unixSeconds(date);
  return {
    created_at: unixSeconds(job.createdAt),
    started_at: at(job.startedAt),
    finished_at: at(job.finishedAt),
    status: job.status,
    wanted: job.wanted,
    metrics: job.metrics,
    config: { ...(job.config as Record<string, unknown>) },
    config_hash: job.configHash,
    seed: job.seed,
    attempts: job.attempts,
    ...(job.error ? { error: job.error } : {}),
    metadata: job.metadata,
  };
}
