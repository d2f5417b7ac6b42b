/** What the pipeline of a distillation job adds to its stages, and how well it keeps them at work side by side. */
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import path from "node:path";
import type { DistillConfig } from "../../src/distill/config.ts";
import { generate } from "../../src/distill/generate.ts";
import type { SourceRow } from "../../src/distill/job-deps.ts";
import { createProgress } from "../../src/distill/progress.ts";
import type { EngineModel, Precision } from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { createTextService } from "../../src/text/client.ts";
import type { TextModel } from "../../src/text/text.ts";
import type { ServedModel } from "../../src/train/job-deps.ts";
import { claim, distillConfig, newRun } from "../distill/fixture.ts";
import { type RandomShape, SMOLLM2_135M } from "../engine/random-checkpoint.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "../miniature/formats.ts";
import { quantile } from "./quantile.ts";
import { randomFrom } from "./random.ts";
import { writeRandomModel } from "./random-model.ts";
import { randomWords } from "./random-words.ts";
import { counting, type Recording, recording, replaying, unread } from "./replay.ts";

export interface DistilOptions {
  directory?: string;
  precision: Precision;
  threads?: number;
}

interface Load {
  questions: number;
  samples: number;
  tokens: number;
}

/** Enough questions that filling the window at the beginning and emptying it at the end are a small part. */
const DEVICE: Load = { questions: 32, samples: 4, tokens: 24 };
const FIXED_RATE: Load = { questions: 96, samples: 4, tokens: 24 };
/** Its stages are quick, so that what lies between them shows, and many questions fit into a minute. */
const SMALL: RandomShape = {
  ...SMOLLM2_135M,
  vocabSize: 2_048,
  hiddenSize: 192,
  intermediateSize: 512,
  layers: 6,
  heads: 3,
  kvHeads: 3,
};
const ROUNDS = 5;
const DEVICE_TARGET = 1.05;
const RATE_TARGET = 0.85;
/** Generation elsewhere takes so many times what scoring here takes. */
const BALANCES = [0.6, 1, 1.6] as const;

export async function benchDistil(options: DistilOptions, print: (line: string) => void): Promise<void> {
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-distil-"));
  const { precision, threads = availableParallelism() } = options;
  try {
    const directory = options.directory ?? (await writeRandomModel(path.join(scratch, "random"), SMALL));
    print(`model: ${options.directory ?? "random weights, 6 layers of 192"}, ${precision}, ${threads} threads`);
    print(
      `load of the machine: ${loadavg()[0]!.toFixed(1)} (what else it does is in these figures: look at the spread)`,
    );
    const common = { directory, scratch, precision, threads };
    await withBed({ ...common, load: DEVICE }, (bed) => oneDevice(bed, print));
    await withBed({ ...common, load: FIXED_RATE }, (bed) => fixedRate(bed, print));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

interface Bed {
  load: Load;
  /**
   * Milliseconds of a job with a model opened anew, whose prefix cache is empty. Throws where a job that scores reads other
   * tokens than the one before it: its figures would be of other work.
   */
  time(how: { scored: boolean; teacher?: (model: EngineModel) => EngineModel }): Promise<number>;
}

async function oneDevice({ load, time }: Bed, print: (line: string) => void): Promise<void> {
  const ratios: number[] = [];
  print(`one device: ${load.questions} questions, ${load.samples} explanations of ${load.tokens} tokens each`);
  for (let round = 0; round < ROUNDS; round++) {
    const drawn: Recording = new Map();
    const generation = await time({ scored: false, teacher: (model) => unread(recording(model, drawn)) });
    const scoring = await time({ scored: true, teacher: (model) => replaying(model, drawn, null) });
    const both = await time({ scored: true });
    ratios.push(both / (generation + scoring));
    print(
      `  generation ${seconds(generation)}, scoring ${seconds(scoring)}, the job ${seconds(both)}: ${ratios.at(-1)!.toFixed(3)}`,
    );
  }
  const ratio = quantile(ratios, 0.5);
  const [low, high] = [Math.min(...ratios).toFixed(3), Math.max(...ratios).toFixed(3)];
  const met = ratio <= DEVICE_TARGET ? "met" : "MISSED";
  print(
    `the job / (generation + scoring): ${ratio.toFixed(3)} (median; ${low} to ${high}; target at most ${DEVICE_TARGET}: ${met})`,
  );
}

async function fixedRate({ load, time }: Bed, print: (line: string) => void): Promise<void> {
  print(`a teacher elsewhere of a fixed rate: ${load.questions} questions, ${load.samples} × ${load.tokens} tokens`);
  const drawn: Recording = new Map();
  await time({ scored: false, teacher: (model) => unread(recording(model, drawn)) });
  const tokens = [...drawn.values()].flat().filter(({ type }) => type === "token").length;
  for (const balance of BALANCES) {
    const scoring = await time({ scored: true, teacher: (model) => unread(replaying(model, drawn, null)) });
    const rate = tokens / ((balance * scoring) / 1_000);
    const elsewhere = (model: EngineModel): EngineModel => unread(replaying(model, drawn, rate));
    const generation = await time({ scored: false, teacher: elsewhere });
    const both = await time({ scored: true, teacher: elsewhere });
    const share = Math.max(generation, scoring) / both;
    print(
      `  ${rate.toFixed(0)} tok/s: generation ${seconds(generation)}, scoring ${seconds(scoring)}, the job ${seconds(both)}: ` +
        `${(share * 100).toFixed(1)} % of the slower stage (target ${RATE_TARGET * 100} %: ${share >= RATE_TARGET ? "met" : "MISSED"})`,
    );
  }
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(2)} s`;

interface BedOptions {
  directory: string;
  scratch: string;
  precision: Precision;
  threads: number;
  load: Load;
}

async function withBed(options: BedOptions, work: (bed: Bed) => Promise<void>): Promise<void> {
  const { directory, scratch, precision, threads, load } = options;
  const engine = createOnnxEngine({ cacheDir: path.join(scratch, "cache") });
  const checkpoint = await openCheckpoint(directory);
  const texts = createTextService();
  const text = await texts.open(directory);
  const rows = Array.from({ length: load.questions }, (_, i): SourceRow => {
    const next = randomFrom(i + 1);
    return { question: randomWords(next, 20, 20), solution: randomWords(next, 6, 6) };
  });
  let expected: number | null = null;
  try {
    await work({
      load,
      async time({ scored, teacher = (model) => model }) {
        const model = await engine.open(checkpoint, { precision, threads, contextLength: 512, device: "cpu" });
        try {
          const config = configOf(load, scored);
          let read = 0;
          const student = counting(model, (tokens) => {
            read += tokens;
          });
          const took = await timed(config, rows, { teacher: teacher(model), student, text, artifacts: scratch });
          if (scored) {
            expected ??= read;
            if (read !== expected) throw new Error(`the student read ${read} tokens, and ${expected} before`);
          }
          return took;
        } finally {
          await model.close();
        }
      },
    });
  } finally {
    await texts.close();
  }
}

const configOf = ({ samples, tokens }: Load, scored: boolean): DistillConfig =>
  distillConfig({
    samples_per_question: samples,
    sampling: { temperature: 0.7, top_p: 1, top_k: 0, max_tokens: tokens },
    select: { rule: "all", where: null },
    ...(scored ? {} : { student: null }),
  });

interface Parts {
  teacher: EngineModel;
  student: EngineModel;
  text: TextModel;
  artifacts: string;
}

async function timed(config: DistillConfig, rows: SourceRow[], parts: Parts): Promise<number> {
  const { text, artifacts } = parts;
  const common = { id: "bench", version: 1, adapter: null, text, contextLength: 512, eosIds: [] };
  const served = (engine: EngineModel, format: ServedModel["format"]): ServedModel => ({
    ...common,
    engine,
    format,
    release: () => undefined,
  });
  const context = claim(newRun(), config);
  const dataset = { id: "bench", contentHash: "bench", count: rows.length, row: async (i: number) => rows[i]! };
  const progress = createProgress(context, config, rows.length, () => performance.now());
  const deps = {
    teach: async () => served(parts.teacher, TEACHER_FORMAT),
    serve: async () => served(parts.student, STUDENT_FORMAT),
    patiently: <T>(attempt: () => Promise<T>): Promise<T> => attempt(),
    artifacts,
  };
  const begun = performance.now();
  await generate(deps, context, config, dataset, progress);
  const took = performance.now() - begun;
  if (progress.now.accepted !== rows.length * config.samples_per_question) {
    throw new Error(`not every explanation became a row: ${JSON.stringify(progress.now.rejected)}`);
  }
  return took;
}
