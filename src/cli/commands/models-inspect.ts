import { stat } from "node:fs/promises";
import { join, parse, resolve } from "node:path";
import { loadConfig } from "../../config.ts";
import { materialiseGguf } from "../../model/gguf/materialise.ts";
import { inspectModel, type ModelInspection } from "../../model/inspect.ts";
import { parseModelSource, resolveLocalModel } from "../../model/source.ts";
import type { CliContext } from "../context.ts";
import { CliError, usage } from "../errors.ts";
import { bytes, count } from "../terminal/numbers.ts";
import { sanitiseLine } from "../terminal/sanitise.ts";

/** What Preceptor reads in a model; a model that it refuses ends as the error that registering it would give. */
export async function inspect(model: string, options: { json?: boolean }, context: CliContext): Promise<void> {
  const facts = await inspectModel(await directoryOf(model, context));
  context.out(options.json ? `${JSON.stringify(facts, null, 2)}\n` : describe(facts));
}

async function directoryOf(model: string, context: CliContext): Promise<string> {
  const source = parseModelSource(model);
  if (source.kind === "hf") {
    const { download } = await import("./models-pull.ts");
    return download(source, context);
  }
  if (source.kind !== "path") throw usage(`${model} is served elsewhere; only files can be inspected.`);
  // The user's own path: unlike the server, the command line may read whatever its user may.
  const path = resolve(source.path);
  if (!(await stat(path).catch(() => null))) {
    throw new CliError(`${path} does not exist; give a checkpoint directory, a .gguf file or hf:org/name.`);
  }
  const local = await resolveLocalModel(path, [parse(path).root]);
  if (local.kind === "directory") return local.path;
  const config = loadConfig(undefined, { serving: false });
  return materialiseGguf(local.path, join(config.dataDir, "cache"));
}

function describe(facts: ModelInspection): string {
  const memory = facts.memory_fp32;
  const rows: [string, string][] = [
    ["directory", facts.directory],
    ["family", facts.family === facts.model_type ? facts.family : `${facts.family} (model_type ${facts.model_type})`],
    ["parameters", `${count(facts.parameters)} (${facts.parameters})`],
    [
      "shape",
      `${facts.layers} layers, hidden ${facts.hidden_size}, MLP ${facts.intermediate_size}, ${facts.heads} heads (${facts.kv_heads} for keys and values) of ${facts.head_dim}`,
    ],
    ["vocabulary", `${facts.vocab_size}, head ${facts.tied_head ? "tied to the embedding" : "of its own"}`],
    ["context", String(facts.context_length)],
    ["rope", JSON.stringify(facts.rope)],
    ...(facts.sliding_window
      ? [
          ["sliding", `${facts.sliding_window.width} tokens in ${facts.sliding_window.layers} layers`] as [
            string,
            string,
          ],
        ]
      : []),
    [
      "files",
      `${bytes(facts.weight_bytes)}, ${Object.entries(facts.dtypes)
        .map(([dtype, tensors]) => `${tensors} tensors ${dtype}`)
        .join(", ")}`,
    ],
    ["end of turn", facts.eos_ids.length > 0 ? `ids ${facts.eos_ids.join(", ")}` : "not named"],
    ["tokenizer", facts.tokenizer ? "tokenizer.json" : "missing: it cannot be registered without tokenizer.json"],
    ["chat template", facts.chat_template ? "yes" : "none: the format must bring one"],
    ...(facts.tempered === null ? [] : [["tempered", `logits divided by ${facts.tempered}`] as [string, string]]),
    [
      "memory",
      `${bytes(memory.weights)} in fp32, and ${bytes(memory.cache_per_token)} per token of context (${bytes(memory.cache_full_context)} for a full one)`,
    ],
    ["weights hash", facts.weights_hash],
  ];
  return `${rows.map(([name, value]) => `${name.padEnd(LABEL_WIDTH)}${sanitiseLine(value)}`).join("\n")}\n`;
}

const LABEL_WIDTH = 15;
