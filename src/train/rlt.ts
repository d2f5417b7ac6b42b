/** Reinforcement of a teacher by its student's understanding (arXiv 2506.08388): GRPO on explanations. */
import { mapLimited } from "../concurrency.ts";
import type { LossConfig, TrainingSequence } from "../engine/engine.ts";
import { fail } from "../errors.ts";
import { type Group, groupAdvantages } from "../rlt/advantages.ts";
import { teacherPrompt } from "../rlt/prompts.ts";
import { type Hyperparameters, type RewardSpec, rowsPerStep } from "./config.ts";
import type { Current, Policy } from "./policy.ts";
import { type RewardDeps, type Rewarded, rewardOf } from "./rewards.ts";
import { type Completion, rollout } from "./rollout.ts";
import { corrected, mismatchMetrics } from "./rollout-correction.ts";
import {
  atStep,
  better,
  type Clock,
  endStep,
  finiteStep,
  isDue,
  mean,
  optimStepOf,
  type RunReport,
  type RunState,
  type Stopped,
} from "./run.ts";
import { derivedSeed, rowsOfStep } from "./seeds.ts";

export interface QuestionRow {
  question: string;
  solution: string;
}

export interface RltRun {
  policy: Policy;
  /** What the KL term holds the policy to; null where β is 0. */
  reference: (() => Promise<Current>) | null;
  /** Pulls the reference towards the policy. */
  pull: (() => Promise<void>) | null;
  /** Explanations are drawn in another precision than they are learnt from. */
  corrects: boolean;
  hyperparameters: Hyperparameters;
  totalSteps: number;
  seed: number;
  rows: readonly QuestionRow[];
  /** Which row of the dataset it is, counted from 0: for errors. */
  numberOf(row: number): number;
  heldOut: readonly QuestionRow[];
  rewards: readonly RewardSpec[];
  /** Whose prompts and whose eyes; the teacher's weights are the policy's. */
  deps: Omit<RewardDeps, "teacher"> & {
    teacher: Omit<RewardDeps["teacher"], "engine" | "adapter"> & { eosIds: readonly number[] };
  };
  report: RunReport;
  clock: Clock;
  signal: AbortSignal;
}

interface Sample extends QuestionRow {
  promptIds: Int32Array;
  completion: Completion;
  rewarded: Rewarded;
  advantage: number;
  group: Group;
}

/** Texts scored at once: a group's, so that what they share is read once. */
const PARALLEL_SCORES = 64;
/** Real completions shown per step. */
const SAMPLES_SHOWN = 2;
const EVALUATION = 0x65766c;

/** Goes on from `state` and leaves in it where it stopped; null: all steps are done. */
export async function rlt(run: RltRun, state: RunState): Promise<Stopped | null> {
  const { policy, hyperparameters: h, totalSteps, report, clock, signal } = run;
  while (state.step < totalSteps) {
    const time = createPhases(clock);
    const chosen = rowsOfStep(state.step, rowsPerStep(h), run.rows.length, run.seed);
    const named = chosen.map(run.numberOf);
    const questions = chosen.map((row) => run.rows[row]!);
    const samples = await sampled(run, questions, derivedSeed(run.seed, state.step), time);

    const drawn = await time("reference", () => withReference(run, samples));
    const config = { loss: "grpo", temperature: h.temperature, beta: h.beta } as const;
    const sequences = run.corrects ? await time("correction", () => weighed(run, drawn, samples, config)) : drawn;
    const { loss, logprobs } = await time("forward_backward", () =>
      atStep(state.step, named, policy.training.forwardBackward({ sequences, config, signal })),
    );
    const optim = optimStepOf(h, state.step, totalSteps);
    const { gradNorm } = await time("optimizer", () => atStep(state.step, named, finiteStep(policy, optim)));

    state.step++;
    for (const { promptIds, completion } of samples) {
      state.tokensSampled += completion.ids.length;
      state.tokensTrained += promptIds.length + completion.ids.length;
    }
    state.tokensScored += samples.reduce((sum, { rewarded }) => sum + (rewarded.score?.scoredTokens ?? 0), 0);
    if (run.pull && isDue(state.step, h.ref_model_sync_steps)) await time("reference", run.pull);
    const metrics: Record<string, number> = {
      ...metricsOf(samples),
      ...mismatchMetrics(samples, logprobs),
      ...klOf(sequences, logprobs),
      loss,
      grad_norm: gradNorm,
      learning_rate: optim.learningRate,
      num_tokens: state.tokensTrained,
    };
    let best = false;
    if (run.heldOut.length > 0 && isDue(state.step, h.eval_steps)) {
      const value = await time("evaluation", () => evaluate(run));
      metrics.eval_reward = value;
      best = better(state, value);
    }
    const phases = time.seconds();
    state.seconds += phases.step_time!;
    await report.metrics(state.step, { ...metrics, ...phases });
    for (const sample of samples.slice(0, SAMPLES_SHOWN)) await report.sample(shown(sample, state.step));
    const stopped = await endStep(run, state, best);
    if (stopped) return stopped;
  }
  return null;
}

/** Explanations of each question with their rewards, and the advantage of each in its group. */
async function sampled(
  run: Pick<RltRun, "policy" | "hyperparameters" | "deps" | "rewards" | "signal">,
  questions: readonly QuestionRow[],
  seed: number,
  time: Phases,
): Promise<Sample[]> {
  const { policy, hyperparameters: h, deps, signal } = run;
  const current = await time("sampling", () => policy.current());
  const groups = await time("sampling", () =>
    Promise.all(
      questions.map(async (row, i) => {
        const prompt = teacherPrompt(deps.teacher.format, row.question, row.solution);
        const { ids: promptIds } = await deps.teacher.text.encodePrompt(prompt);
        checkPrompt(promptIds.length, h, current.engine.contextLength, row);
        const completions = await rollout(current, deps.teacher.text, deps.teacher.format, {
          promptIds,
          n: h.num_generations,
          temperature: h.temperature,
          topP: h.top_p,
          maxTokens: Math.min(h.max_completion_length, current.engine.contextLength - promptIds.length),
          seed: derivedSeed(seed, i),
          eosIds: deps.teacher.eosIds,
          signal,
        });
        return completions.map((completion) => ({ ...row, promptIds, completion }));
      }),
    ),
  );
  const teacher = { ...deps.teacher, ...current };
  const asking = { priority: "job" as const, signal, client: undefined };
  return time("scoring", async () => {
    const rewarded = await mapLimited(groups.flat(), PARALLEL_SCORES, (sample) =>
      rewardOf(run.rewards, sample, { ...deps, teacher }, asking),
    );
    return groups.flatMap((samples, i) => {
      const own = rewarded.slice(i * h.num_generations, (i + 1) * h.num_generations);
      const group = groupAdvantages(own.map(({ reward }) => reward));
      return samples.map((sample, j) => ({ ...sample, rewarded: own[j]!, advantage: group.advantages[j]!, group }));
    });
  });
}

/** TRL cuts prompts; half a question has no solution, so here it ends the job and says which. */
function checkPrompt(length: number, h: Hyperparameters, contextLength: number, { question }: QuestionRow): void {
  const most = Math.min(h.max_prompt_length ?? Infinity, contextLength - 1);
  if (length <= most) return;
  throw fail(
    "context_length_exceeded",
    `the prompt of ${JSON.stringify(question.slice(0, 80))} has ${length} tokens; at most ${most} are possible: leave the row out, or raise max_prompt_length or the model's context_length`,
    { param: "dataset" },
  );
}

/** Every sampled token counts, up to the one that completes the closing tag or ends the turn (method.md, "GRPO"). */
async function withReference(run: RltRun, samples: readonly Sample[]): Promise<TrainingSequence[]> {
  const sequences = samples.map(({ promptIds, completion, advantage }) => {
    const ids = Int32Array.from([...promptIds, ...completion.ids]);
    const weights = new Float32Array(ids.length).fill(1, promptIds.length);
    return { ids, weights, advantages: new Float32Array(ids.length).fill(advantage) };
  });
  if (!run.reference || run.hyperparameters.beta === 0) return sequences;
  const { engine, adapter } = await run.reference();
  const results = await engine.logprobs({
    sequences: sequences.map(({ ids }, i) => ({ ids, from: samples[i]!.promptIds.length })),
    temperature: run.hyperparameters.temperature,
    adapter,
    priority: "job",
    signal: run.signal,
  });
  return sequences.map((sequence, i) => {
    const reference = new Float32Array(sequence.ids.length);
    reference.set(results[i]!.logprobs, samples[i]!.promptIds.length);
    return { ...sequence, reference };
  });
}

/** What the weights that learn say of the draws is asked before it is learnt from: a forward pass more. */
async function weighed(
  { policy, signal }: RltRun,
  sequences: readonly TrainingSequence[],
  samples: readonly Sample[],
  config: LossConfig,
): Promise<TrainingSequence[]> {
  const { logprobs } = await policy.training.forward({ sequences, config, signal });
  return corrected(sequences, samples, logprobs);
}

/** Mean reward of held-out questions; the same draws every time, so that two evaluations differ by the weights alone. */
export async function evaluate(
  run: Omit<RltRun, "report" | "reference" | "pull" | "rows" | "numberOf" | "corrects">,
): Promise<number> {
  const samples = await sampled(run, run.heldOut, derivedSeed(run.seed, EVALUATION), (_, work) => work());
  return mean(samples.map(({ rewarded }) => rewarded.reward));
}

/** TRL's names. */
function metricsOf(samples: readonly Sample[]): Record<string, number> {
  const groups = [...new Set(samples.map(({ group }) => group))];
  const lengths = samples.map(({ completion }) => completion.ids.length);
  const ended = samples.filter(({ completion }) => completion.ended);
  const parts = Object.keys(samples[0]!.rewarded.parts);
  const scores = samples.flatMap(({ rewarded: { score } }) => (score ? [score] : []));
  return {
    reward: mean(samples.map(({ rewarded }) => rewarded.reward)),
    reward_std: mean(groups.map(({ std }) => std)),
    frac_reward_zero_std: mean(groups.map(({ silent }) => (silent ? 1 : 0))),
    ...Object.fromEntries(
      parts.map((part) => [`rewards/${part}/mean`, mean(samples.map(({ rewarded }) => rewarded.parts[part]!))]),
    ),
    "completions/mean_length": mean(lengths),
    "completions/min_length": Math.min(...lengths),
    "completions/max_length": Math.max(...lengths),
    "completions/clipped_ratio": 1 - ended.length / samples.length,
    "completions/mean_terminated_length": mean(ended.map(({ completion }) => completion.ids.length)),
    // −log p of what was drawn: an unbiased estimate of the policy's entropy.
    entropy: -mean(samples.flatMap(({ completion }) => completion.logprobs)),
    ...(scores.length > 0
      ? {
          "rlt/solution_reward": mean(scores.map(({ solution }) => solution.reward)),
          "rlt/solution_logprob_mean": mean(scores.map(({ solution }) => solution.logprob_mean)),
          "rlt/kl_reward": mean(scores.map(({ kl }) => kl?.reward ?? 0)),
          "rlt/format_failures": mean(scores.map(({ format }) => (format.ok ? 0 : 1))),
        }
      : {}),
  };
}

/** Mean k3 of policy and reference over the tokens drawn. */
function klOf(sequences: readonly TrainingSequence[], logprobs: readonly Float32Array[]): Record<string, number> {
  if (!sequences[0]?.reference) return {};
  const values = sequences.flatMap(({ weights, reference }, i) =>
    Array.from(weights, (weight, t) => {
      const distance = reference![t]! - logprobs[i]![t]!;
      return weight > 0 ? Math.exp(distance) - distance - 1 : Number.NaN;
    }).filter((value) => !Number.isNaN(value)),
  );
  return { kl: mean(values) };
}

function shown({ question, solution, completion, rewarded }: Sample, step: number) {
  const { reward, parts, score } = rewarded;
  return { step, question, solution, completion: completion.text, reward, parts, format_ok: score?.format.ok ?? true };
}

type Phases = <T>(name: string, work: () => Promise<T>) => Promise<T>;

/** Seconds by phase: where the time of a step goes. */
function createPhases(clock: Clock): Phases & { seconds(): Record<string, number> } {
  const begun = clock.now();
  const spent: Record<string, number> = {};
  const measure = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const started = clock.now();
    try {
      return await work();
    } finally {
      spent[name] = (spent[name] ?? 0) + (clock.now() - started) / 1000;
    }
  };
  return Object.assign(measure, {
    seconds: () => ({
      ...Object.fromEntries(Object.entries(spent).map(([name, seconds]) => [`rlt/time/${name}`, seconds])),
      step_time: (clock.now() - begun) / 1000,
    }),
  });
}
