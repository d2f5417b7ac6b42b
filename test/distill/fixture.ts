import { randomUUID } from "node:crypto";
import path from "node:path";
import { createFileArtifacts } from "../../src/artifacts/files.ts";
import { openDatasetFiles } from "../../src/datasets/dataset.ts";
import { keepDataset } from "../../src/datasets/keep.ts";
import type { DatasetRow } from "../../src/datasets/row.ts";
import type { DatasetRecord, NewDataset } from "../../src/db/dataset-store.ts";
import type { DistillConfig } from "../../src/distill/config.ts";
import type { DistillDeps, SourceRow } from "../../src/distill/job-deps.ts";
import type { JobContext } from "../../src/jobs/context.ts";
import type { JobProgress, JobRecord, Wanted } from "../../src/jobs/records.ts";
import { DEFAULT_COEFFICIENTS } from "../../src/rlt/reward.ts";
import { type Lab, openLab, tasks } from "../train/fixture.ts";

export interface DistillLab {
  lab: Lab;
  deps: DistillDeps;
  datasets: DatasetRecord[];
  rowsOf(id: string | null): Promise<DatasetRow[]>;
  close(): Promise<void>;
}

export function questions(count: number): SourceRow[] {
  return tasks(count).map((row, i) => ({ ...row, id: `q${i}`, metadata: { n: i, of: { level: i % 3 } } }));
}

export async function openDistillLab(rows: SourceRow[] = questions(40)): Promise<DistillLab> {
  const lab = await openLab();
  const { artifacts } = lab.deps;
  const store = createFileArtifacts({ directory: artifacts });
  const datasets: DatasetRecord[] = [];
  const heads = {
    find: async (id: string) => datasets.find((one) => one.id === id),
    async insert(dataset: NewDataset, place: () => Promise<void>) {
      await place();
      const record = { ...dataset, createdAt: new Date(), deletedAt: null };
      datasets.push(record);
      return record;
    },
  };
  const deps: DistillDeps = {
    teach: (model, signal) => lab.deps.use(model, { role: "teacher", rollouts: "fp32", signal }),
    serve: (model, signal) => lab.deps.serve(model, signal),
    answer: (model, signal) => lab.deps.serve(model, signal),
    patiently: (attempt) => attempt(),
    evaluated: async (asked) => ({
      rows: Array.from({ length: asked.limit ?? rows.length }, (_, i) => i),
      row: async (i) => rows[i]!,
    }),
    dataset: async (id) => {
      const made = datasets.find((one) => one.id === id);
      if (made) return openDatasetFiles(store, made);
      return { id, contentHash: "sha256:source", count: rows.length, row: async (i) => rows[i]! };
    },
    keep: keepDataset({ store: heads, artifacts: store }),
    queue: lab.deps.queue,
    training: lab.deps,
    artifacts,
  };
  return {
    lab,
    deps,
    datasets,
    async rowsOf(id) {
      const found: DatasetRow[] = [];
      const record = datasets.find((one) => one.id === id);
      if (record) for await (const row of (await openDatasetFiles(store, record)).rows()) found.push(row);
      return found;
    },
    close: lab.close,
  };
}

export function distillConfig(changes: Partial<DistillConfig> = {}): DistillConfig {
  return {
    from: "teacher",
    teacher: "mini@1",
    student: "mini@1",
    dataset: "ds_source",
    samples_per_question: 2,
    sampling: { temperature: 0.7, top_p: 1, top_k: 0, max_tokens: 10 },
    coefficients: DEFAULT_COEFFICIENTS,
    kl: { estimator: "k1", k: 0 },
    select: { rule: "best", where: null },
    filters: { format: false, fits_context: null, dedupe: null, not_leaked: null },
    target_rows: null,
    preview: null,
    finetune: null,
    evaluate: null,
    budget: { tokens: null, seconds: null },
    seed: 5,
    name: null,
    ...changes,
  };
}

/** A job over all its lives: what one worker leaves, the next one finds. */
export interface DistillRun {
  job: string;
  progress: JobProgress | null;
  metrics: Map<number, Record<string, number>>;
  events: { type: string; data: unknown }[];
  attempts: number;
}

export const newRun = (job = `djob_${randomUUID()}`): DistillRun => ({
  job,
  progress: null,
  metrics: new Map(),
  events: [],
  attempts: 0,
});

/** The job as a worker gets it that takes it up. */
export function claim(
  run: DistillRun,
  config: { seed: number },
  {
    signal = new AbortController().signal,
    wanted = () => null as Wanted | null,
    onEvent = (_: DistillRun): void => undefined,
  } = {},
): JobContext {
  run.attempts++;
  return {
    job: {
      id: run.job,
      config,
      configHash: "sha256:config",
      seed: config.seed,
      progress: run.progress,
      leaseToken: run.attempts,
      attempts: run.attempts,
    } as unknown as JobRecord,
    signal,
    wanted,
    async event(type, data) {
      signal.throwIfAborted();
      run.events.push({ type, data });
      onEvent(run);
    },
    async metrics(step, values) {
      signal.throwIfAborted();
      run.metrics.set(step, { ...run.metrics.get(step), ...values });
    },
    async progress(progress) {
      signal.throwIfAborted();
      run.progress = structuredClone(progress);
    },
    async checkpoint() {
      signal.throwIfAborted();
    },
  };
}

export const journalOf = (artifacts: string, job: string): string => path.join(artifacts, "jobs", job, "questions");
