import { z } from "@hono/zod-openapi";
import { fail } from "../../errors.ts";

/**
 * Fields of OpenAI's document (and a few of vLLM's that its clients always send) that are not implemented: accepted at
 * a value that changes nothing, refused by name otherwise, never dropped in silence.
 */
export interface NeutralField {
  /** What is accepted besides null. */
  values: readonly unknown[];
  /** Why it is refused, or what to use instead. */
  instead: string;
}

export type NeutralTable = Readonly<Record<string, NeutralField>>;

const penalty: NeutralField = { values: [0], instead: "penalties on repeated tokens are not implemented" };
const serviceOnly: NeutralField = { values: [], instead: "it belongs to OpenAI's hosted service" };

const shared = {
  frequency_penalty: penalty,
  presence_penalty: penalty,
  repetition_penalty: { ...penalty, values: [1] },
  logit_bias: { values: [{}], instead: "biases on tokens are not implemented" },
  min_p: { values: [0], instead: "use top_p or top_k" },
  min_tokens: { values: [0], instead: "use ignore_eos with max_tokens" },
} satisfies NeutralTable;

export const COMPLETION_NEUTRAL = {
  ...shared,
  best_of: { values: [1], instead: "ask for n choices with logprobs and choose" },
  suffix: { values: [""], instead: "insertion is not implemented; put the text into the prompt" },
} satisfies NeutralTable;

export const CHAT_NEUTRAL = {
  ...shared,
  audio: { values: [], instead: "only text is generated" },
  function_call: { values: ["none"], instead: "function calls are not implemented" },
  functions: { values: [[]], instead: "function calls are not implemented" },
  metadata: { values: [{}], instead: "chat completions are not stored" },
  modalities: { values: [["text"]], instead: "only text is generated" },
  moderation: serviceOnly,
  parallel_tool_calls: { values: [true, false], instead: "tools are not implemented" },
  prediction: { values: [], instead: "predicted outputs are not implemented" },
  prompt_cache_key: serviceOnly,
  prompt_cache_options: { ...serviceOnly, values: [{}] },
  prompt_cache_retention: serviceOnly,
  reasoning_effort: { values: ["none"], instead: "say in a message how much to reason" },
  response_format: { values: [{ type: "text" }], instead: "structured outputs are not implemented" },
  safety_identifier: serviceOnly,
  service_tier: { values: ["auto", "default"], instead: "there are no service tiers" },
  store: { values: [false], instead: "chat completions are not stored" },
  tool_choice: { values: ["none", "auto"], instead: "tools are not implemented" },
  tools: { values: [[]], instead: "tools are not implemented" },
  verbosity: { values: ["medium"], instead: "say in a message how long the answer should be" },
  web_search_options: { values: [], instead: "there is no web search" },
  chat_template_kwargs: { values: [{}], instead: "the template is rendered without further variables" },
} satisfies NeutralTable;

/** The table as optional fields of a strict schema, so that they are known and documented. */
export function neutralShape<K extends string>(
  table: Readonly<Record<K, NeutralField>>,
): Record<K, z.ZodOptional<z.ZodUnknown>> {
  const fields = Object.entries<NeutralField>(table).map(([name, { values, instead }]) => {
    const accepted = [...values, null].map((value) => JSON.stringify(value)).join(", ");
    const description = `Not implemented (${instead}). Accepted: ${accepted}.`;
    return [name, z.unknown().optional().openapi({ description })] as const;
  });
  return Object.fromEntries(fields) as Record<K, z.ZodOptional<z.ZodUnknown>>;
}

/** Throws `unsupported_parameter` for the first field that is not at a neutral value. */
export function refuseUnsupported(body: object, table: NeutralTable, path = ""): void {
  for (const [name, { values, instead }] of Object.entries(table)) {
    const value: unknown = (body as Record<string, unknown>)[name];
    if (value === undefined || value === null || values.some((neutral) => sameValue(value, neutral))) continue;
    throw fail("unsupported_parameter", `${path}${name} is not supported: ${instead}. Leave it out`, {
      param: `${path}${name}`,
    });
  }
}

/** Neutral values are numbers, strings and flat containers of them. */
function sameValue(value: unknown, neutral: unknown): boolean {
  if (typeof neutral !== "object" || neutral === null) return value === neutral;
  if (typeof value !== "object" || value === null || Array.isArray(value) !== Array.isArray(neutral)) return false;
  const keys = Object.keys(value);
  return (
    keys.length === Object.keys(neutral).length &&
    keys.every((key) => (value as Record<string, unknown>)[key] === (neutral as Record<string, unknown>)[key])
  );
}
