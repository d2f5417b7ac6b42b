/** Registered models for a training job: with their files where they learn, and held in memory until the job lets them go. */
import type { DistillDeps } from "../../distill/job-deps.ts";
import type { Precision } from "../../engine/engine.ts";
import { fail } from "../../errors.ts";
import type { TrainingDeps } from "../../train/job-deps.ts";
import type { Needs } from "../models/needs.ts";
import type { Role } from "../models/registry.ts";
import type { ModelService } from "../models/service.ts";
import { patiently } from "../patience.ts";

/** Of gradients, and so of all whose numbers must be theirs, however the model is registered to be served. */
const TRAINED_AS = "fp32" satisfies Precision;

export function createModelUse(
  models: Pick<ModelService, "prepare" | "hold" | "openOptions">,
): Pick<TrainingDeps, "use" | "serve"> & Pick<DistillDeps, "teach" | "answer"> {
  const held = (name: string, role: Role, needs: Needs, signal: AbortSignal) =>
    patiently(() => models.hold(name, { role, param: role, signal, needs }), signal);
  return {
    async use(name, { role, rollouts, signal }) {
      const { version, prepared } = await patiently(
        () => models.prepare(name, { role, param: "model", signal }),
        signal,
      );
      if (prepared.kind !== "checkpoint") throw notTrainable(version.id);
      const { checkpoint } = prepared;
      const hold = (precision: Precision) =>
        patiently(() => models.hold(name, { role, param: "model", signal, precision }), signal);
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
    teach: (teacher, signal) => held(teacher, "teacher", { sample: true }, signal),
    serve: (student, signal) => held(student, "student", { logprobs: true }, signal),
    answer: (student, signal) => held(student, "student", { sample: true }, signal),
  };
}

export function notTrainable(id: string, param?: string): Error {
  return fail(
    "unsupported_by_backend",
    `${id} is served by a remote server, whose weights cannot be trained from here; register its checkpoint as a model of this server`,
    { param },
  );
}
