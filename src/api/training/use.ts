/** Registered models for a training job: with their files where they learn, and held in memory until the job lets them go. */
import { setTimeout as delay } from "node:timers/promises";
import type { DistillDeps } from "../../distill/job-deps.ts";
import type { Precision } from "../../engine/engine.ts";
import { fail, PreceptorError } from "../../errors.ts";
import type { TrainingDeps } from "../../train/job-deps.ts";
import type { ModelService } from "../models/service.ts";

/** Of gradients, and so of all whose numbers must be theirs, however the model is registered to be served. */
const TRAINED_AS = "fp32" satisfies Precision;
/** Where the server says nothing better. */
const RETRY_SECONDS = 5;

export function createModelUse(
  models: Pick<ModelService, "prepare" | "hold" | "openOptions">,
): Pick<TrainingDeps, "use" | "serve"> & Pick<DistillDeps, "teach"> {
  return {
    async use(name, { role, rollouts, signal }) {
      const { version, prepared } = await patiently(signal, () =>
        models.prepare(name, { role, param: "model", signal }),
      );
      if (prepared.kind !== "checkpoint") throw notTrainable(version.id);
      const { checkpoint } = prepared;
      const hold = (precision: Precision) =>
        patiently(signal, () => models.hold(name, { role, param: "model", signal, precision }));
      const held = await hold(TRAINED_AS);
      const options = models.openOptions({ ...version, precision: TRAINED_AS }, checkpoint);
      if (rollouts === TRAINED_AS) return { ...held, checkpoint, options, sampler: held.engine };
      try {
        const sampling = await hold(rollouts);
        const release = (): void => {
          sampling.release();
          held.release();
        };
        return { ...held, checkpoint, options, sampler: sampling.engine, release };
      } catch (error) {
        held.release();
        throw error;
      }
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
