/** adapter_config.json of PEFT: what a LoRA adapter asks for; anything but plain LoRA on linear maps is refused by name. */
import { fail } from "../errors.ts";
import { type FieldReader, fieldReader, isObject, type JsonObject, show } from "./json.ts";

export interface LoraConfig {
  /** Rank and scale (alpha / r, or alpha / sqrt(r) with rsLoRA) of the module at a path such as `model.layers.0.self_attn.q_proj`. */
  of(modulePath: string): { rank: number; scale: number };
  /** Names that a module's path must end with; null when the config gives a regular expression or "all-linear". */
  targetModules: readonly string[] | null;
}

/** A rank beyond the width of any model. */
const MAX_RANK = 8192;

const isSet = (value: unknown): boolean =>
  value !== false &&
  !(Array.isArray(value) && value.length === 0) &&
  !(isObject(value) && Object.keys(value).length === 0);

const REFUSALS: readonly (readonly [key: string, reason: string, refuses?: (value: unknown) => boolean])[] = [
  ["use_dora", "DoRA is not supported"],
  ["bias", "trained biases are not supported", (value) => value !== "none"],
  ["modules_to_save", "modules trained in full are not supported; merge the adapter into its base"],
  ["lora_bias", "biases of the LoRA matrices are not supported"],
  ["fan_in_fan_out", "transposed weights are not supported"],
  ["layer_replication", "replicated layers are not supported"],
  ["trainable_token_indices", "trained tokens are not supported"],
  ["target_parameters", "adapters on bare parameters are not supported"],
  ["use_qalora", "QALoRA is not supported"],
  ["use_bdlora", "block-diagonal LoRA is not supported"],
  ["alora_invocation_tokens", "activated LoRA is not supported"],
  ["arrow_config", "Arrow routing is not supported"],
  ["kasa_config", "KaSA is not supported"],
  ["velora_config", "VeLoRA is not supported"],
  ["monteclora_config", "MonteCLoRA is not supported"],
  ["task_type", "only adapters of causal language models are supported", (value) => value !== "CAUSAL_LM"],
  [
    "init_lora_weights",
    "this initialisation also changed the base's weights; save the adapter converted to plain LoRA",
    (value) => typeof value !== "boolean" && !["gaussian", "eva", "orthogonal"].includes(String(value)),
  ],
];

/** Errors: `invalid_adapter` naming the key. */
export function parseAdapterConfig(raw: JsonObject): LoraConfig {
  const fields = fieldReader(raw, "adapter_config.json", "invalid_adapter");
  if (raw.peft_type !== "LORA") {
    throw fail("invalid_adapter", `adapters of type ${show(raw.peft_type)} are not supported; LORA is`);
  }
  for (const [key, reason, refuses = isSet] of REFUSALS) {
    const value = fields.raw(key);
    if (value !== undefined && refuses(value)) {
      throw fail("invalid_adapter", `adapter_config.json sets ${key} (${show(value)}): ${reason}`);
    }
  }
  const rank = fields.integer("r", { max: MAX_RANK });
  // PEFT's own default.
  const alpha = fields.number("lora_alpha", { fallback: 8 });
  const rsLora = fields.boolean("use_rslora", false);
  const ranks = patterns(fields, "rank_pattern");
  const alphas = patterns(fields, "alpha_pattern");
  return {
    targetModules: targetModules(fields),
    of(modulePath) {
      const r = ranks(modulePath) ?? rank;
      const a = alphas(modulePath) ?? alpha;
      return { rank: r, scale: a / (rsLora ? Math.sqrt(r) : r) };
    },
  };
}

function targetModules(fields: FieldReader): string[] | null {
  const value = fields.raw("target_modules");
  if (value === undefined || typeof value === "string") return null;
  if (Array.isArray(value) && value.every((name) => typeof name === "string")) return value;
  throw fields.wrong("target_modules", "must be a list of names or a string");
}

/** Names cost a lookup each, expressions a match per module: real adapters have one name per linear map, few expressions. */
const MAX_PATTERNS = 10_000;
const MAX_EXPRESSIONS = 64;

interface Pattern {
  /** Position in the file: the first key that matches counts. */
  order: number;
  value: number;
}

/**
 * `rank_pattern` and `alpha_pattern`: regular expression → number. As in PEFT a key may match the whole path or its
 * end from a dot on.
 */
function patterns(fields: FieldReader, key: string): (modulePath: string) => number | undefined {
  const values = fields.object(key);
  if (values === null) return () => undefined;
  const keys = Object.keys(fields.raw(key) as JsonObject);
  if (keys.length > MAX_PATTERNS) throw fields.wrong(key, `has more than ${MAX_PATTERNS} entries`);
  const names = new Map<string, Pattern>();
  const expressions: (Pattern & { expression: RegExp })[] = [];
  for (const [order, pattern] of keys.entries()) {
    const value = key === "rank_pattern" ? values.integer(pattern, { max: MAX_RANK }) : values.number(pattern);
    if (/^[\w.-]*$/.test(pattern)) names.set(pattern, { order, value });
    else expressions.push({ order, value, expression: compile(fields, key, pattern) });
  }
  if (expressions.length > MAX_EXPRESSIONS) {
    throw fields.wrong(key, `has more than ${MAX_EXPRESSIONS} regular expressions; write the modules' names out`);
  }
  return (modulePath) => {
    const ends = endsOf(modulePath);
    const matches: Pattern[] = ends.flatMap((end) => names.get(end) ?? []);
    matches.push(...expressions.filter(({ expression }) => ends.some((end) => expression.test(end))));
    return matches.sort((a, b) => a.order - b.order)[0]?.value;
  };
}

/** `a.b.c` → `a.b.c`, `b.c`, `c` */
function endsOf(modulePath: string): string[] {
  const parts = modulePath.split(".");
  return parts.map((_, i) => parts.slice(i).join("."));
}

/**
 * The expression comes from a file that a stranger may have written, and one can be made to run for years. Characters,
 * classes and alternatives with repeated digits and one other repetition, none of a group, are quick on short paths.
 */
function compile(fields: FieldReader, key: string, pattern: string): RegExp {
  const digits = /(?:\\d|\[0-9\])[+*]/g;
  const repetitions = pattern.replace(digits, "").match(/[*+?{]/g)?.length ?? 0;
  const harmless = (pattern.match(digits)?.length ?? 0) <= 2 && repetitions <= 1 && !/\)[*+?{]|\(\?/.test(pattern);
  if (harmless && pattern.length <= 200) {
    try {
      return new RegExp(`^(?:${pattern})$`);
    } catch {
      // Falls through to the same refusal as an expression that is too complicated.
    }
  }
  throw fields.wrong(key, `has the pattern ${show(pattern)}, which is not supported; write the modules' names out`);
}
