import { type Needs, together } from "../models/needs.ts";
import type { HeldModel, ModelRegistry } from "../models/registry.ts";
import { type GenerationCaller, type Job, provenanceOf, usageOf } from "./generate.ts";
import { WHOLE_VOCABULARY } from "./limits.ts";
import { type NeutralTable, refuseUnsupported } from "./neutral-fields.ts";
import { promptNeeds } from "./prompt-logprobs.ts";
import { checkStreamOptions } from "./sampling.ts";
import type { SamplingFields } from "./schemas-sampling.ts";

/** What both generating routes need. */
export interface GenerationDeps {
  registry: Pick<ModelRegistry, "hold">;
  /** Unix seconds. */
  now: () => number;
  /** Unsigned 32-bit. */
  randomSeed: () => number;
  newId: () => string;
}

type Body = {
  model: string;
  max_tokens?: number | null | undefined;
  /** Alternatives per token (completions), or whether there are log-probs at all (chats, which echo nothing). */
  logprobs?: number | boolean | null | undefined;
  echo?: boolean | null | undefined;
} & Pick<SamplingFields, "stream" | "stream_options" | "prompt_logprobs" | "prompt_logprobs_temperature">;

/** Nothing is sampled with `max_tokens: 0`. */
function needsOf({ max_tokens, echo, logprobs, prompt_logprobs: asked, ...body }: Body): Needs {
  const needs: Needs[] = [{ sample: max_tokens !== 0 }];
  if (typeof asked === "number") {
    const k = asked === WHOLE_VOCABULARY ? "all" : asked;
    needs.push(promptNeeds({ k, temperature: body.prompt_logprobs_temperature ?? 1 }));
  }
  if (echo && typeof logprobs === "number") needs.push(promptNeeds({ k: logprobs, temperature: 1 }));
  return together(needs);
}

/** Judges a request, holds its model and prepares it. The job's model is released by whoever runs it; on an error here. */
export async function openJob(
  deps: GenerationDeps,
  body: Body,
  neutral: NeutralTable,
  { signal }: GenerationCaller,
  prepare: (held: HeldModel) => Promise<Job>,
): Promise<Job> {
  refuseUnsupported(body, neutral);
  checkStreamOptions(body);
  const held = await deps.registry.hold(body.model, { param: "model", signal, needs: needsOf(body) });
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

/** A stream's chunks: one per delta worth sending, the first with what made it, at last the usage where it was asked for. */
export async function* chunksOf<Base extends object, Delta>(
  job: Job,
  base: Base,
  deltas: AsyncIterable<Delta>,
  options: { isSilent: (delta: Delta) => boolean; withUsage: boolean },
) {
  // With include_usage every chunk has the field, null in all but the last.
  const common = options.withUsage ? { ...base, usage: null } : base;
  let first: Partial<ReturnType<typeof provenanceOf>> = provenanceOf(job);
  for await (const delta of deltas) {
    if (options.isSilent(delta)) continue;
    yield { ...common, choices: [delta], ...first };
    first = {};
  }
  if (options.withUsage) yield { ...base, choices: [], usage: usageOf(job) };
}
