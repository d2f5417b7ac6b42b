import type { HeldModel, ModelRegistry } from "../models/registry.ts";
import type { Job } from "./generate.ts";
import { type NeutralTable, refuseUnsupported } from "./neutral-fields.ts";
import { checkStreamOptions } from "./sampling.ts";

/** What both generating routes need. */
export interface GenerationDeps {
  registry: Pick<ModelRegistry, "hold">;
  /** Unix seconds. */
  now: () => number;
  /** Unsigned 32-bit. */
  randomSeed: () => number;
  newId: () => string;
}

type Body = { model: string } & Parameters<typeof checkStreamOptions>[0];

/** Judges a request, holds its model and prepares it. The job's model is released by whoever runs it; on an error here. */
export async function openJob(
  deps: GenerationDeps,
  body: Body,
  neutral: NeutralTable,
  signal: AbortSignal,
  prepare: (held: HeldModel) => Promise<Job>,
): Promise<Job> {
  refuseUnsupported(body, neutral);
  checkStreamOptions(body);
  const held = await deps.registry.hold(body.model, { param: "model", signal });
  try {
    return await prepare(held);
  } catch (error) {
    held.release();
    throw error;
  }
}

/** The fields with which every answer and every chunk begins. */
export function headOf(deps: GenerationDeps, body: Body, { held }: Job) {
  return {
    id: deps.newId(),
    created: deps.now(),
    model: body.model,
    system_fingerprint: `${held.id}@${held.version}`,
  };
}
