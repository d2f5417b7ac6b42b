/** Weights to begin a training from scratch with, given a config and a seed. */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { fail } from "../errors.ts";
import { syncDirectory } from "../sync-directory.ts";
import type { ModelConfig } from "./checkpoint.ts";
import { parseConfig } from "./config.ts";
import { readJson } from "./json.ts";
import { type OpenCheckpointOptions, openCheckpoint } from "./open.ts";
import { openDirectory } from "./paths.ts";
import { type TensorToWrite, writeSafetensors } from "./safetensors-write.ts";
import { expectedTensors } from "./tensors.ts";

/** `initializer_range` where config.json names none: GPT-2's. */
const DEVIATION = 0.02;

export interface Initial {
  name: string;
  shape: readonly number[];
  data: Float32Array;
}

/**
 * Normal, smaller by √(2 · layers) where a projection adds to the residual stream (two such sums per layer: its variance stays
 * that of one); norms 1 (0 where the family stores w − 1), biases 0. In one order, so that a seed means the same for ever.
 */
export function* initialWeights(config: ModelConfig, seed: number, deviation = DEVIATION): Generator<Initial> {
  const next = normals(uniform(seed));
  for (const [name, shape] of expectedTensors(config)) {
    const data = new Float32Array(shape.reduce((product, n) => product * n, 1));
    if (/norm\.weight$/.test(name)) data.fill(config.gemmaNorms ? 0 : 1);
    else if (!name.endsWith(".bias")) {
      const residual = /\.(o_proj|down_proj)\.weight$/.test(name);
      const own = residual ? deviation / Math.sqrt(2 * config.layers) : deviation;
      for (let i = 0; i < data.length; i++) data[i] = own * next();
    }
    yield { name, shape, data };
  }
}

/**
 * `directory`: config.json, the tokenizer's files and whatever else belongs to the model. Writes `outDirectory` (which must not
 * exist) complete or not at all: the same files with drawn weights. Returns its resolved path. Errors: `invalid_value`, and
 * those of a config that cannot be read.
 */
export async function initialiseCheckpoint(
  directory: string,
  outDirectory: string,
  seed: number,
  options: OpenCheckpointOptions = {},
): Promise<string> {
  const source = await openDirectory(directory, options.allowedRoots);
  if (!source.entries.has("config.json")) {
    throw fail(
      "invalid_checkpoint",
      `${source.name} has no config.json; give a folder with the config and the tokenizer's files`,
    );
  }
  const { value } = await readJson(source, "config.json");
  const { config } = parseConfig(value);
  const deviation = typeof value.initializer_range === "number" ? value.initializer_range : DEVIATION;
  const target = path.resolve(outDirectory);
  const temporary = `${target}.${randomUUID()}.tmp`;
  await mkdir(temporary, { recursive: true });
  try {
    for (const name of source.entries) {
      if (COMPANION.test(name)) await copyFile((await source.file(name)).path, path.join(temporary, name));
    }
    await writeSafetensors(path.join(temporary, "model.safetensors"), tensorsOf(config, seed, deviation));
    await openCheckpoint(temporary);
    // Onto a folder that is not empty it fails.
    await rename(temporary, target).catch((cause: unknown) => {
      throw fail("invalid_value", `${path.basename(target)} exists already; choose another place`, {
        param: "out",
        cause,
      });
    });
    await syncDirectory(path.dirname(target));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
  return target;
}

const COMPANION = /^(?!.*\.index\.json$|adapter_config\.json$).*\.(json|jinja|txt|model)$/;

/** Each is drawn when its turn to be written comes; all of them together need not fit into memory. */
function tensorsOf(config: ModelConfig, seed: number, deviation: number): TensorToWrite[] {
  const drawn = initialWeights(config, seed, deviation);
  return [...expectedTensors(config)].map(([name, shape]) => ({
    name,
    dtype: "F32",
    shape,
    data: function* () {
      const { data } = drawn.next().value as Initial;
      yield new Uint8Array(data.buffer);
    },
  }));
}

/** Box–Muller, two at a time. */
function normals(next: () => number): () => number {
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const kept = spare;
      spare = undefined;
      return kept;
    }
    // 1 − u lies in (0, 1]: its logarithm is finite.
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** mulberry32: fast enough for billions of weights, and good enough for what training overwrites. */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
