/** Training inside a distillation job: a training run whose steps, checkpoints and metrics belong to the job. */
import type { JobContext } from "../jobs/context.ts";
import type { HandlerResult } from "../jobs/finish.ts";
import type { CheckpointRecord } from "../jobs/records.ts";
import type { TrainingConfig } from "../train/config.ts";
import { runTraining } from "../train/handler.ts";
import type { TrainingDeps } from "../train/job-deps.ts";
import type { DistillConfig } from "./config.ts";
import type { Progress } from "./progress.ts";

export interface Finetuned {
  checkpoint: string;
  /** `id@version` where it was registered, `id@ckpt_…` where not. */
  student: string;
}

/** Checkpoints looked at to find the last one of a part: they are pruned as they are made. */
const CHECKPOINTS_READ = 100;

/**
 * Trains `config`, within what the job's budget has left; `stopped`: before its end, with the last checkpoint if there is one.
 * `part` names the run among those of the job. `publish: false` leaves the student a checkpoint, as controls are.
 */
export async function finetune(
  deps: TrainingDeps,
  context: JobContext,
  config: TrainingConfig,
  part: string,
  progress: Progress,
  budget: DistillConfig["budget"],
  publish: boolean,
): Promise<{ stopped: HandlerResult["outcome"]; made: Finetuned | null } | { stopped: null; made: Finetuned }> {
  const { job } = context;
  const mine = (checkpoint: CheckpointRecord): boolean => (checkpoint.config as { part?: unknown }).part === part;
  const list = async (): Promise<CheckpointRecord[]> =>
    (await deps.queue.listCheckpoints({ jobId: job.id, limit: CHECKPOINTS_READ, order: "desc" })).rows.filter(mine);
  const inside: TrainingDeps = {
    ...deps,
    queue: {
      ...deps.queue,
      lastCheckpoint: async () => (await list())[0],
      listCheckpoints: async () => ({ rows: await list(), hasMore: false }),
    },
    publish: publish
      ? deps.publish
      : async ({ config: { model } }) => ({ role: "student", id: model.split("@")[0]!, version: 0 }),
  };
  const before = { step: progress.now.step, trained: progress.now.tokens_trained, left: progress.left(budget) };
  const reached = progress.now.made[`${part}_base`] as typeof before | undefined;
  const base = reached ?? before;
  if (!reached) await progress.made(`${part}_base`, base);
  const run = await runTraining(inside, {
    ...context,
    job: {
      ...job,
      id: `${job.id}-${part}`,
      config: { ...config, budget: base.left },
      seed: config.seed,
      progress: null,
    },
    metrics: (step, values) => context.metrics(step, prefixed(part, values)),
    event: (type, data) => context.event(type, { part, ...(data as object) }),
    checkpoint: (checkpoint) =>
      context.checkpoint({ ...checkpoint, config: { ...(checkpoint.config as object), part }, isBest: false }),
    progress: ({ step, percent, eta_seconds: eta, tokens_trained: trained }) =>
      progress.update({
        step: Math.max(progress.now.step, base.step + step),
        percent: percent as number,
        eta_seconds: eta as number | null,
        tokens_trained: base.trained + (trained as number),
      }),
  });
  const { checkpoint, student } = (run.result ?? {}) as { checkpoint?: string; student?: string };
  const made = checkpoint === undefined ? null : { checkpoint, student: nameOf(config, checkpoint, publish, student) };
  if (run.outcome === "succeeded") return { stopped: null, made: made! };
  return { stopped: run.outcome, made };
}

const nameOf = (config: TrainingConfig, checkpoint: string, publish: boolean, registered = ""): string =>
  publish && registered !== "" ? registered : `${config.model.split("@")[0]!}@${checkpoint}`;

const prefixed = (part: string, values: Readonly<Record<string, number>>): Record<string, number> =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [`${part}/${name}`, value]));
