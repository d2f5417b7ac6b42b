import { stat } from "node:fs/promises";
import { join, parse, resolve } from "node:path";
import { type Config, loadConfig } from "../../config.ts";
import { choosePrecision } from "../../engine/auto-precision.ts";
import type { Precision } from "../../engine/engine.ts";
import { createOnnxEngine } from "../../engine/onnx/engine.ts";
import { estimateBytes } from "../../engine/placement.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import { materialiseGguf } from "../../model/gguf/materialise.ts";
import { inspectModel, type ModelInspection } from "../../model/inspect.ts";
import { openCheckpoint } from "../../model/open.ts";
import { parseModelSource, resolveLocalModel } from "../../model/source.ts";
import { bytes, count } from "../../numbers.ts";
import { sanitiseLine } from "../../sanitise.ts";
import { createTextService } from "../../text/client.ts";
import type { CliContext } from "../context.ts";
import { CliError, usage } from "../errors.ts";
import { type Quality, qualityOf } from "../quality/quality.ts";
import { type StatusStream, statusLine } from "../terminal/status-line.ts";
import { describeQuality } from "./models-inspect-quality.ts";

export interface InspectOptions {
  json?: boolean;
  /** `--no-quality` makes it false. */
  quality: boolean;
}

/** What Preceptor reads in a model; a model that it refuses ends as the error that registering it would give. */
export async function inspect(model: string, options: InspectOptions, context: CliContext): Promise<void> {
  const config = loadConfig(undefined, { serving: false });
  const directory = await directoryOf(model, config, context);
  const facts = await inspectModel(directory);
  const checkpoint = await openCheckpoint(directory);
  const budgetBytes = config.modelMemoryBytes;
  const auto = choosePrecision(checkpoint, { budgetBytes, device: "cpu" });
  if (!options.json) context.out(describe(facts, auto));
  const quality = options.quality ? await measured(checkpoint, facts, config, context) : null;
  if (options.json) {
    context.out(`${JSON.stringify({ ...facts, auto_precision: auto, quality }, null, 2)}\n`);
  } else if (quality) {
    const needs = (precision: Precision): number => estimateBytes(checkpoint, { precision });
    context.out(`\n${describeQuality(quality, { budgetBytes, needs })}`);
  }
}

async function measured(
  checkpoint: Checkpoint,
  facts: ModelInspection,
  config: Config,
  context: CliContext,
): Promise<Quality> {
  if (!facts.tokenizer) return { not_measured: "no tokenizer" };
  const text = createTextService();
  const status = statusLine(process.stderr as StatusStream);
  try {
    return await qualityOf(checkpoint, {
      createEngine: createOnnxEngine,
      text,
      cacheDir: join(config.dataDir, "cache"),
      budgetBytes: config.modelMemoryBytes,
      threads: config.threads,
      onMeasure: (precision, index, all) => status.show(`measuring ${precision} (${index + 1} of ${all}) …`),
      signal: context.signal,
    });
  } finally {
    status.clear();
    await text.close();
  }
}

async function directoryOf(model: string, config: Config, context: CliContext): Promise<string> {
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
  return materialiseGguf(local.path, join(config.dataDir, "cache"));
}

function describe(facts: ModelInspection, auto: Precision): string {
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
    ...(facts.gguf_type === null ? [] : [["gguf", `most weights were ${facts.gguf_type}`] as [string, string]]),
    ["end of turn", facts.eos_ids.length > 0 ? `ids ${facts.eos_ids.join(", ")}` : "not named"],
    ["tokenizer", facts.tokenizer ? "tokenizer.json" : "missing: it cannot be registered without tokenizer.json"],
    ["chat template", facts.chat_template ? "yes" : "none: the format must bring one"],
    ...(facts.tempered === null ? [] : [["tempered", `logits divided by ${facts.tempered}`] as [string, string]]),
    [
      "memory",
      `${bytes(memory.weights)} in fp32, and ${bytes(memory.cache_per_token)} per token of context (${bytes(memory.cache_full_context)} for a full one)`,
    ],
    ["precision", `auto is ${auto} on this machine`],
    ["weights hash", facts.weights_hash],
  ];
  return `${rows.map(([name, value]) => `${name.padEnd(LABEL_WIDTH)}${sanitiseLine(value)}`).join("\n")}\n`;
}

const LABEL_WIDTH = 15;
