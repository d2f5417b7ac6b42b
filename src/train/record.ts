/** What a job leaves behind while it runs: metrics, samples, progress, and checkpoints to go on from. */
import path from "node:path";
import { fail } from "../errors.ts";
import { newId } from "../ids.ts";
import type { JobContext } from "../jobs/context.ts";
import { type RunCheckpoints, weightsHashOf } from "./checkpoint.ts";
import type { TrainingConfig } from "./config.ts";
import type { TrainingDeps } from "./job-deps.ts";
import { openMetricsFile } from "./metrics-file.ts";
import type { Policy } from "./policy.ts";
import type { RunReport, RunState } from "./run.ts";
import { openEventsFile } from "./tensorboard.ts";

/** What a run was made of, as its checkpoints keep it. */
export interface RunHashes {
  dataset: string;
  eval_dataset?: string;
  weights: string;
}

export interface Saving {
  deps: TrainingDeps;
  context: JobContext;
  config: TrainingConfig;
  checkpoints: RunCheckpoints;
  policy: Policy;
  kind: "adapter" | "full";
  hashes: RunHashes;
  /** Steps before those of the phase. */
  offset: () => number;
  allSteps: number;
  reference: () => string | null;
}

export async function createReport(saving: Saving, fromStep: number): Promise<RunReport> {
  const { deps, context, config } = saving;
  const folder = path.join(deps.artifacts, "jobs", context.job.id);
  const file = await openMetricsFile(path.join(folder, "metrics.jsonl"), fromStep);
  const board = await openEventsFile(folder, fromStep, () => Date.now() / 1000);
  return {
    async metrics(step, values) {
      await context.metrics(step + saving.offset(), values);
      await file.append(step + saving.offset(), values);
      await board.append(step + saving.offset(), values);
    },
    sample: (sample) => context.event("job.sample", sample),
    progress: (state) => context.progress(progressOf(state, saving)),
    checkpoint: (state, how) => saveCheckpoint(saving, state, how),
    stop(state) {
      if (context.signal.aborted)
        throw fail("interrupted", "the worker stops; the job goes on from its last checkpoint");
      return context.wanted() ?? (isSpent(config, state) ? "budget" : null);
    },
  };
}

function progressOf(state: RunState, { offset, allSteps }: Saving) {
  const step = state.step + offset();
  return {
    step,
    phase: state.phase,
    total_steps: allSteps,
    percent: (100 * step) / allSteps,
    eta_seconds: step === 0 ? null : (state.seconds / step) * (allSteps - step),
    tokens_sampled: state.tokensSampled,
    tokens_scored: state.tokensScored,
    tokens_trained: state.tokensTrained,
  };
}

function isSpent({ budget }: TrainingConfig, state: RunState): boolean {
  const tokens = state.tokensSampled + state.tokensScored + state.tokensTrained;
  return tokens >= (budget.tokens ?? Infinity) || state.seconds >= (budget.seconds ?? Infinity);
}

async function saveCheckpoint(saving: Saving, state: RunState, how: { best: boolean }): Promise<void> {
  const { context, config, checkpoints, policy, kind, hashes } = saving;
  const id = newId("ckpt");
  const directory = await checkpoints.save(id, { training: policy.training, state, reference: saving.reference() });
  const weightsHash = await weightsHashOf(directory, kind);
  await context.checkpoint({
    id,
    step: state.step + saving.offset(),
    kind,
    artifact: `checkpoints/${id}`,
    weightsHash,
    config: {
      method: config.method,
      model: config.model,
      config_hash: context.job.configHash,
      phase: state.phase,
      ...hashes,
    },
    isBest: how.best,
  });
  await checkpoints.settle(id);
  await prune(saving);
}

/** Keeps the last few and the best one. */
async function prune({ deps, context, config, checkpoints }: Saving): Promise<void> {
  const { rows } = await deps.queue.listCheckpoints({ jobId: context.job.id, limit: 100, order: "desc" });
  const old = rows.slice(config.hyperparameters.save_total_limit).filter(({ isBest }) => !isBest);
  for (const { id } of old) {
    // A fork, or a job whose teacher or student it is, may wait for it.
    if ((await deps.queue.needing(id)).length > 0) continue;
    await deps.queue.removeCheckpoint(id);
    await checkpoints.remove(checkpoints.directoryOf(id));
  }
}
