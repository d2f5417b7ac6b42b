/**
 * The whole product in miniature, through its front door: rows are uploaded, a teacher is reinforced by its student, distils a
 * dataset, and a student learns from it and is measured before and after, beside two controls.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { DistillationJob } from "../../src/api/distillation/schemas.ts";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import type { DistillResult } from "../../src/distill/handler.ts";
import type { StudentResult } from "../../src/distill/student.ts";
import { startPreceptor } from "../e2e/running.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "./formats.ts";
import { LEARNING } from "./learning.ts";
import { type TaskOptions, takeTasks } from "./tasks.ts";

export interface DistilOptions {
  seed: number;
  rltSteps: number;
  rows: number;
  heldOut: number;
}

export const DISTIL: DistilOptions = { seed: 1, rltSteps: LEARNING.steps, rows: 1_000, heldOut: 300 };

/** `base`: directory of the pre-trained model, which is teacher and student at first. */
export async function distil(
  base: string,
  { seed, rltSteps, rows, heldOut }: DistilOptions,
  print: (line: string) => void,
): Promise<DistillResult & StudentResult> {
  const dataDir = await mkdtemp(path.join(tmpdir(), "preceptor-distil-"));
  const server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: path.dirname(base), PRECEPTOR_THREADS: "2" }, dataDir);
  const upload = async (name: string, count: number, options: TaskOptions): Promise<string> => {
    const tasks = takeTasks(count, { ...options, difficulty: [4, 6] });
    const body = tasks.map(({ question, solution, explanation, style }, i) => ({
      id: `${name}-${i}`,
      question,
      solution,
      reasoning_trace: explanation,
      metadata: { style },
    }));
    return (await server.post<{ id: string }>("/v1/datasets", { name, rows: body }, 201)).id;
  };
  const ended = async <Job extends { status: string; finished_at: number | null; progress: object; error?: unknown }>(
    route: string,
  ): Promise<Job> => {
    for (let last = ""; ; await delay(500)) {
      const job = await server.get<Job>(route);
      if (job.finished_at !== null) {
        if (job.status === "succeeded") return job;
        throw new Error(`${route} ended as ${job.status}: ${JSON.stringify(job.error)}`);
      }
      const { stage, part, phase } = job.progress as Record<string, string | null | undefined>;
      const now = [stage ?? phase, part].filter(Boolean).join(" ");
      if (now !== "" && now !== last) print(`  ${now}`);
      last = now;
    }
  };
  try {
    const common = { model: path.basename(base), context_length: 256 };
    await server.post("/v1/teachers", { id: "teacher", format: TEACHER_FORMAT, ...common });
    await server.post("/v1/students", { id: "student", format: STUDENT_FORMAT, ...common });
    const train = await upload("train", 6_000, { seed });
    const held = await upload("held-out", heldOut, { seed: HELD_OUT_SEED, split: "held_out" });
    const explain = await upload("questions", rows, { seed: seed + 1_000 });

    print("reinforcement");
    const { id: learning } = await server.post<TrainingJob>("/v1/training/jobs", rltJob(train, seed, rltSteps), 201);
    const learnt = await ended<TrainingJob>(`/v1/training/jobs/${learning}`);
    print(`  ${learnt.result!.teacher}: last reward ${learnt.metrics.reward?.toFixed(2)} nats`);

    print("distillation");
    const { id } = await server.post<DistillationJob>(
      "/v1/distillation/jobs",
      {
        teacher: learnt.result!.teacher,
        student: "student@1",
        dataset: explain,
        max_tokens: 100,
        seed,
        finetune: {
          model: "student@1",
          full: true,
          suffix: "distilled",
          hyperparameters: { learning_rate: 5e-4, per_device_train_batch_size: 32, num_train_epochs: 4 },
          controls: ["solutions", "reasoning_trace"],
        },
        evaluate: { dataset: held, answer: "exact", max_tokens: 120 },
      },
      201,
    );
    const done = await ended<DistillationJob>(`/v1/distillation/jobs/${id}`);
    return done.result as unknown as DistillResult & StudentResult;
  } finally {
    await server.close();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** As `npm run miniature` takes it (learning.ts), as a job. */
function rltJob(dataset: string, seed: number, steps: number) {
  return {
    method: "rlt",
    teacher: "teacher",
    student: "student",
    dataset,
    full: true,
    seed,
    warmup: { learning_rate: 5e-4, per_device_train_batch_size: 64, max_steps: LEARNING.warmupSteps },
    hyperparameters: {
      learning_rate: 5e-5,
      lr_scheduler_type: "constant_with_warmup",
      warmup_ratio: 0.08,
      num_generations: LEARNING.explanations,
      per_device_train_batch_size: LEARNING.explanations,
      gradient_accumulation_steps: LEARNING.questions,
      max_completion_length: 100,
      max_steps: steps,
    },
  };
}

const HELD_OUT_SEED = 7;
