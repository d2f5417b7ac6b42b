/** Registered models for a training job: with their files where they learn, and held in memory until the job lets them go. */
import { setTimeout as delay } from "node:timers/promises";
import type { DistillDeps } from "../../distill/job-deps.ts";
import { fail, PreceptorError } from "../../errors.ts";
import type { TrainingDeps } from "../../train/job-deps.ts";
import type { ModelService } from "../models/service.ts";

/** Where the server says nothing better. */
const RETRY_SECONDS = 5;

export function createModelUse(
  models: Pick<ModelService, "prepare" | "hold" | "openOptions">,
): Pick<TrainingDeps, "use" | "serve"> & Pick<DistillDeps, "teach"> {
  return {
    async use(name, role, signal) {
      const { version, prepared } = await patiently(signal, () =>
        models.prepare(name, { role, param: "model", signal }),
      );
      if (prepared.kind !== "checkpoint") throw notTrainable(version.id);
      const { checkpoint } = prepared;
      const held = await patiently(signal, () => models.hold(name, { role, param: "model", signal }));
      return { ...held, checkpoint, options: models.openOptions(version, checkpoint) };
    },
    teach: (teacher, signal) =>
      patiently(signal, () =>
        models.hold(teacher, { role: "teacher", param: "teacher", signal, needs: { sample: true } }),
      ),
    serve: (student, signal) =>
      patiently(signal, () =>
        models.hold(student, { role: "student", param: "student", signal, needs: { logprobs: true } }),
      ),
  };
}

export function notTrainable(id: string, param?: string): Error {
  return fail(
    "unsupported_by_backend",
    `${id} is served by a remote server, whose weights cannot be trained from here; register its checkpoint as a model of this server`,
    { param },
  );
}

/** A request is told to come back later; a job waits: it has nobody to tell. */
export async function patiently<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof PreceptorError) || !LATER.has(error.code)) throw error;
      await delay((error.retryAfterSeconds ?? RETRY_SECONDS) * 1000, undefined, { signal });
    }
  }
}

const LATER: ReadonlySet<string> = new Set(["model_loading", "overloaded", "queue_full", "backend_unavailable"]);
