/** A LoRA adapter in PEFT's layout (adapter_config.json, adapter_model.safetensors), checked against its base. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { fail, PreceptorError } from "../errors.ts";
import { type LoraConfig, parseAdapterConfig } from "./adapter-config.ts";
import type { AdapterFiles, AdapterTarget, Checkpoint, TensorLocation } from "./checkpoint.ts";
import { isFloatDtype } from "./dtype.ts";
import { readJson } from "./json.ts";
import type { OpenCheckpointOptions } from "./open.ts";
import { type ModelDirectory, openDirectory } from "./paths.ts";
import { readSafetensorsHeader } from "./safetensors.ts";
import { linearShapes } from "./tensors.ts";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";

/**
 * `checkpoint`: its base; null where that is elsewhere (a remote server), which then judges whether they belong together: the
 * adapter has no `targets` here. Errors: `invalid_adapter` (naming key or tensor), `model_source_not_found`, `model_source_not_allowed`.
 * https://huggingface.co/docs/peft/developer_guides/checkpoint
 */
export async function openAdapter(
  directory: string,
  checkpoint: Checkpoint | null,
  options: OpenCheckpointOptions = {},
): Promise<AdapterFiles> {
  const dir = await openDirectory(directory, options.allowedRoots);
  requireFiles(dir);
  try {
    const { value, bytes } = await readJson(dir, CONFIG, "invalid_adapter");
    const lora = parseAdapterConfig(value);
    const file = await dir.file(WEIGHTS);
    const { tensors } = await readSafetensorsHeader(file.path, WEIGHTS);
    const targets = checkpoint ? pairTensors(tensors, lora, checkpoint) : [];
    return { directory: dir.path, hash: await hashFiles(bytes, file.path), targets };
  } catch (error) {
    throw asAdapterError(error);
  }
}

/** The `hash` that `openAdapter` would find now. Throws as it does. */
export async function hashAdapter(directory: string): Promise<string> {
  const dir = await openDirectory(directory);
  requireFiles(dir);
  try {
    const { bytes } = await readJson(dir, CONFIG, "invalid_adapter");
    return await hashFiles(bytes, (await dir.file(WEIGHTS)).path);
  } catch (error) {
    throw asAdapterError(error);
  }
}

function requireFiles(dir: ModelDirectory): void {
  if (!dir.entries.has(CONFIG)) {
    throw fail("invalid_adapter", `${dir.name} has no ${CONFIG}; give the directory of a PEFT adapter`);
  }
  if (dir.entries.has(WEIGHTS)) return;
  const hint = dir.entries.has("adapter_model.bin") ? "; convert adapter_model.bin to safetensors" : "";
  throw fail("invalid_adapter", `${dir.name} has no ${WEIGHTS}${hint}`);
}

/** The readers of files speak of checkpoints; here the same problem is the adapter's. */
function asAdapterError(error: unknown): unknown {
  const ofFile = error instanceof PreceptorError && /^(invalid|unsupported)_checkpoint$/.test(error.code);
  return ofFile ? fail("invalid_adapter", error.message, { cause: error }) : error;
}

/** `base_model.model.` + the module's path + `.lora_A.weight`; the two multimodal layouts have a longer path. */
const TENSOR_NAME =
  /^base_model\.model\.((?:model\.|model\.language_model\.|language_model\.model\.)layers\.(\d{1,5})\.((?:self_attn|mlp)\.(\w+)))\.lora_([AB])(?:\.default)?\.weight$/;

interface Pair {
  modulePath: string;
  layer: number;
  module: string;
  a?: TensorLocation;
  b?: TensorLocation;
}

function pairTensors(
  tensors: ReadonlyMap<string, TensorLocation>,
  lora: LoraConfig,
  checkpoint: Checkpoint,
): AdapterTarget[] {
  const shapes = linearShapes(checkpoint.config);
  const pairs = new Map<string, Pair>();
  for (const [name, location] of tensors) {
    const [, modulePath, layer, path, module, side] = TENSOR_NAME.exec(name) ?? [];
    if (modulePath === undefined || module === undefined || shapes[module]?.path !== path) throw unknownTensor(name);
    if (Number(layer) >= checkpoint.config.layers) {
      throw fail(
        "invalid_adapter",
        `${name} belongs to layer ${layer}, but the base has ${checkpoint.config.layers} layers`,
      );
    }
    const key = `${Number(layer)}.${module}`;
    const pair = pairs.get(key) ?? { modulePath, layer: Number(layer), module };
    const slot = side === "A" ? "a" : "b";
    if (pair[slot] !== undefined) throw fail("invalid_adapter", `${modulePath} has two lora_${side} matrices`);
    pair[slot] = location;
    pairs.set(key, pair);
  }
  if (pairs.size === 0) throw fail("invalid_adapter", `${WEIGHTS} holds no LoRA matrices`);
  requireTargets([...pairs.values()], lora);
  const order = Object.keys(shapes);
  return [...pairs.values()]
    .map((pair) => checkPair(pair, lora, shapes[pair.module]!))
    .sort((x, y) => x.layer - y.layer || order.indexOf(x.module) - order.indexOf(y.module));
}

function unknownTensor(name: string): Error {
  const shown = name.slice(0, 160);
  if (/lora_embedding|embed_tokens|lm_head/.test(name)) {
    return fail("invalid_adapter", `${shown}: LoRA on the embedding or the head is not supported`);
  }
  if (name.includes("lora_magnitude_vector")) return fail("invalid_adapter", `${shown}: DoRA is not supported`);
  return fail("invalid_adapter", `${shown} is not a LoRA matrix of a linear map of the base`);
}

/** PEFT drops tensors whose module is not a target, so one here means that config and weights do not belong together. */
function requireTargets(pairs: readonly Pair[], lora: LoraConfig): void {
  const names = lora.targetModules;
  if (names === null) return;
  const targets = (name: string, path: string) => path === name || path.endsWith(`.${name}`);
  for (const { modulePath } of pairs) {
    if (!names.some((name) => targets(name, modulePath))) {
      throw fail("invalid_adapter", `${modulePath} has LoRA matrices but is not among target_modules`);
    }
  }
  for (const name of names) {
    if (!pairs.some(({ modulePath }) => targets(name, modulePath))) {
      throw fail("invalid_adapter", `target_modules names ${name.slice(0, 80)}, but ${WEIGHTS} has no matrices for it`);
    }
  }
}

function checkPair(pair: Pair, lora: LoraConfig, linear: { out: number; in: number }): AdapterTarget {
  const { modulePath, layer, module, a, b } = pair;
  if (a === undefined || b === undefined) {
    throw fail("invalid_adapter", `${modulePath} lacks its lora_${a === undefined ? "A" : "B"} matrix`);
  }
  const { rank, scale } = lora.of(modulePath);
  requireMatrix(`${modulePath}.lora_A`, a, [rank, linear.in]);
  requireMatrix(`${modulePath}.lora_B`, b, [linear.out, rank]);
  return { layer, module, rank, scale, a, b };
}

function requireMatrix(name: string, { shape, dtype }: TensorLocation, expected: readonly [number, number]): void {
  if (shape.length !== 2 || shape[0] !== expected[0] || shape[1] !== expected[1]) {
    throw fail(
      "invalid_adapter",
      `${name} has shape [${shape.join(", ")}] where rank and base ask for [${expected.join(", ")}]; was the adapter trained on another base?`,
    );
  }
  if (!isFloatDtype(dtype)) throw fail("invalid_adapter", `${name} is ${dtype}; it must be F32, F16 or BF16`);
}

/** Adapters are small enough to be read whole. */
async function hashFiles(config: Uint8Array, weights: string): Promise<string> {
  const hash = createHash("sha256").update(config).update("\n");
  for await (const chunk of createReadStream(weights)) hash.update(chunk as Buffer);
  return `sha256:${hash.digest("hex")}`;
}
