/** What a job's rewards would make of a few rows, before it is paid for: the same draws and scores as a step of rlt. */
import type { Caller } from "../../../caller.ts";
import { mapLimited } from "../../../concurrency.ts";
import { fail } from "../../../errors.ts";
import { groupAdvantages } from "../../../rlt/advantages.ts";
import { studentFormat, teacherFormat } from "../../../rlt/formats.ts";
import { teacherPrompt } from "../../../rlt/prompts.ts";
import type { DatasetSource } from "../../../train/datasets.ts";
import { resolveConfig, type Surroundings } from "../../../train/resolve-config.ts";
import { rewardOf } from "../../../train/rewards.ts";
import { rollout } from "../../../train/rollout.ts";
import { mean } from "../../../train/run.ts";
import { derivedSeed } from "../../../train/seeds.ts";
import type { HeldModel, ModelRegistry } from "../../models/registry.ts";
import type { Preview, PreviewRequest } from "./schemas.ts";

export interface PreviewService {
  preview(request: PreviewRequest, caller: Caller): Promise<Preview>;
}

export interface PreviewDeps extends Surroundings {
  registry: ModelRegistry;
  datasets: DatasetSource;
  fetch: typeof fetch;
}

/** Rows under way at once. */
const PARALLEL_ROWS = 4;
const PARALLEL_SCORES = 16;

export function createPreviewService(deps: PreviewDeps): PreviewService {
  return {
    async preview(request, caller) {
      const { teacher: named, student: judge, rewards, seed } = request;
      // The same rules as those of a job.
      const config = resolveConfig(
        { method: "rlt", teacher: named, student: judge, rewards, seed, dataset: request.dataset ?? "items" },
        deps,
      );
      const rows = await rowsOf(deps.datasets, request);
      const { signal } = caller;
      const teacher = await deps.registry.hold(named, {
        role: "teacher",
        param: "teacher",
        signal,
        needs: { sample: true },
      });
      let student: HeldModel | null = null;
      try {
        if (judge !== undefined) {
          const how = {
            role: "student",
            param: "student",
            signal,
            beside: teacher,
            needs: { logprobs: true },
          } as const;
          student = await deps.registry.hold(judge, how);
        }
        const group = (row: Row, i: number) =>
          previewRow(deps, { teacher, student, config, request, caller }, row, derivedSeed(config.seed, i));
        const data = await mapLimited(rows, PARALLEL_ROWS, group);
        const all = data.flatMap(({ completions }) => completions);
        return {
          object: "rewards.preview",
          data,
          reward: mean(all.map(({ reward }) => reward)),
          reward_std: mean(data.map(({ reward_std: std }) => std)),
          frac_reward_zero_std: mean(data.map(({ silent }) => (silent ? 1 : 0))),
          clipped_ratio: mean(all.map(({ ended }) => (ended ? 0 : 1))),
          seed: config.seed,
        };
      } finally {
        teacher.release();
        student?.release();
      }
    },
  };
}

interface Row {
  question: string;
  solution: string;
}

async function rowsOf(datasets: DatasetSource, { dataset, items, rows }: PreviewRequest): Promise<Row[]> {
  if (dataset !== undefined && items)
    throw fail("invalid_value", "items: give a dataset or items, not both", { param: "items" });
  if (items) return items;
  if (dataset === undefined) throw fail("invalid_value", "dataset is required, or items", { param: "dataset" });
  const { count, row } = await datasets.open(dataset);
  if (count === 0) throw fail("invalid_value", "dataset: it has no rows", { param: "dataset" });
  return Promise.all(Array.from({ length: Math.min(rows, count) }, (_, i) => row(i)));
}

interface Setting {
  teacher: HeldModel;
  student: HeldModel | null;
  config: ReturnType<typeof resolveConfig>;
  request: PreviewRequest;
  caller: Caller;
}

async function previewRow(
  { allowedHosts, fetch }: PreviewDeps,
  { teacher, student, config, request, caller }: Setting,
  { question, solution }: Row,
  seed: number,
): Promise<Preview["data"][number]> {
  const format = teacherFormat(teacher.format);
  const { engine, adapter, text, eosIds, contextLength } = teacher;
  const { ids: promptIds } = await text.encodePrompt(teacherPrompt(format, question, solution));
  const room = contextLength - promptIds.length;
  if (room < 1) {
    throw fail(
      "context_length_exceeded",
      `the prompt has ${promptIds.length} tokens and the teacher's context is ${contextLength}`,
      {
        param: "teacher",
      },
    );
  }
  const { num_generations: n, temperature, top_p: topP, max_completion_length: most } = request;
  const { signal, client } = caller;
  const maxTokens = Math.min(most, room);
  const drawn = await rollout({ engine, adapter }, text, format, {
    promptIds,
    n,
    temperature,
    topP,
    maxTokens,
    seed,
    eosIds,
    signal,
    client,
  });
  const deps = {
    teacher: { engine, adapter, text, format },
    student: student && {
      engine: student.engine,
      adapter: student.adapter,
      text: student.text,
      format: studentFormat(student.format),
    },
    temperature,
    allowedHosts,
    fetch,
  };
  const rewarded = await mapLimited(drawn, PARALLEL_SCORES, (completion) =>
    rewardOf(config.rewards, { question, solution, completion }, deps, { ...caller, priority: "job" }),
  );
  const { advantages, std, silent } = groupAdvantages(rewarded.map(({ reward }) => reward));
  return {
    question,
    solution,
    reward_mean: mean(rewarded.map(({ reward }) => reward)),
    reward_std: std,
    silent,
    completions: drawn.map(({ text: completion, ids, ended }, i) => ({
      completion,
      tokens: ids.length,
      ended,
      reward: rewarded[i]!.reward,
      parts: rewarded[i]!.parts,
      advantage: advantages[i]!,
    })),
  };
}
