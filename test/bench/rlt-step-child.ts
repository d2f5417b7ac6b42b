/** A training job of a few rlt steps in a process of its own. Run by rlt-step.ts; the settings are the argument, the figures the last line. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { runTraining } from "../../src/train/handler.ts";
import { openLab, rltConfig, startRun } from "../train/fixture.ts";
import { processBytes } from "./process-memory.ts";
import { FORMAT, RLT_STEP, type RltStepFigures, type RltStepSettings } from "./rlt-step.ts";
import { LORA } from "./train.ts";

const { directory, threads, rows } = JSON.parse(process.argv[2] ?? "") as RltStepSettings;
const resident = (line: "VmRSS" | "VmHWM"): number => processBytes(process.pid, line) ?? Number.NaN;
const emptyBytes = resident("VmRSS");

const lab = await openLab(rows, {
  directory,
  options: { precision: "fp32", contextLength: 1024, threads, device: "cpu" },
  formats: { teacher: FORMAT, student: FORMAT },
  // Nothing ends an explanation before its last token.
  eosIds: [],
});
const base = rltConfig();
const job = startRun(
  lab,
  rltConfig({
    lora: { ...base.lora!, r: LORA.rank, lora_alpha: LORA.alpha },
    hyperparameters: {
      ...base.hyperparameters,
      learning_rate: RLT_STEP.learningRate,
      per_device_train_batch_size: RLT_STEP.explanations,
      gradient_accumulation_steps: 1,
      num_generations: RLT_STEP.explanations,
      max_completion_length: RLT_STEP.length,
      temperature: RLT_STEP.temperature,
      beta: RLT_STEP.beta,
      max_steps: RLT_STEP.steps,
      save_steps: 0,
    },
  }),
  "bench",
);
try {
  await runTraining(lab.deps, job.context);
  const lines = (await readFile(path.join(lab.deps.artifacts, "jobs", "bench", "metrics.jsonl"), "utf8"))
    .trim()
    .split("\n");
  const steps = lines.slice(1).map((line) => JSON.parse(line) as Record<string, number>);
  const fastest = steps.reduce((best, step) => (step.step_time! < best.step_time! ? step : best));
  const seconds = (phase: keyof RltStepFigures["phases"]): number => fastest[`rlt/time/${phase}`]!;
  const figures: RltStepFigures = {
    stepSeconds: fastest.step_time!,
    phases: {
      sampling: seconds("sampling"),
      scoring: seconds("scoring"),
      reference: seconds("reference"),
      forward_backward: seconds("forward_backward"),
      optimizer: seconds("optimizer"),
    },
    tokens: fastest["completions/mean_length"]! * RLT_STEP.explanations,
    emptyBytes,
    peakBytes: resident("VmHWM"),
  };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
} finally {
  await lab.close();
}
