import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type {
  EngineModel,
  FinishReason,
  Precision,
  SampleEvent,
  SampleRequest,
  TopLogprobs,
} from "../../src/engine/engine.ts";
import { createOnnxEngine } from "../../src/engine/onnx/engine.ts";
import type { Checkpoint } from "../../src/model/checkpoint.ts";
import { openCheckpoint } from "../../src/model/open.ts";

export const FAMILIES = ["qwen2", "qwen2-tied", "llama", "llama3-rope", "qwen3", "mistral", "gemma3"] as const;

/** Tolerances of test/golden/README.md. */
export const LOGIT_TOLERANCE = 2e-3;
export const LOGPROB_TOLERANCE = 1e-3;
export const LEAST_MARGIN = 1e-3;

export interface GoldenPrompt {
  ids: number[];
  "logprobs_T1.0": (number | null)[];
  "logprobs_T0.7": (number | null)[];
  entropy: number[];
  greedy_ids: number[];
  greedy_logprobs: number[];
  greedy_margin: number[];
}

export interface Golden {
  prompts: GoldenPrompt[];
  train: { batch: number[][]; lora_logprobs_T1: number[][]; "ref_logprobs_T0.7": number[][] };
}

export const goldenDirectory = (name: string): string =>
  fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));

export async function readGolden(name: string): Promise<Golden> {
  return JSON.parse(await readFile(`${goldenDirectory(name)}/expected.json`, "utf8")) as Golden;
}

/** A tensor of expected.safetensors. */
export async function readExpected(name: string, tensor: string): Promise<Float32Array> {
  const file = await readFile(`${goldenDirectory(name)}/expected.safetensors`);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  const [start, end] = header[tensor]!.data_offsets.map((offset) => 8 + headerBytes + offset) as [number, number];
  return new Float32Array(new Uint8Array(file.subarray(start, end)).buffer);
}

export interface Opened {
  checkpoint: Checkpoint;
  model: EngineModel;
}

/** Packed weights of small models; every test process may use what another wrote, as servers do. */
export const CACHE_DIR = path.join(tmpdir(), "preceptor-test-cache");

export async function openModel(
  directory: string,
  contextLength = 512,
  precision: Precision = "fp32",
): Promise<Opened> {
  const checkpoint = await openCheckpoint(directory);
  const options = { precision, contextLength, threads: 2, device: "cpu" } as const;
  return { checkpoint, model: await createOnnxEngine({ cacheDir: CACHE_DIR }).open(checkpoint, options) };
}

export interface Sampled {
  ids: number[];
  logprobs: number[];
  tops: TopLogprobs[];
  reason: FinishReason | undefined;
}

/** Runs a request to its end; one entry per sequence. */
export async function sampleAll(
  model: EngineModel,
  request: Partial<Omit<SampleRequest, "params">> & {
    promptIds: Int32Array;
    params?: Partial<SampleRequest["params"]>;
  },
  onEvent: (event: SampleEvent) => void = () => undefined,
): Promise<Sampled[]> {
  const n = request.n ?? 1;
  const out = Array.from({ length: n }, (): Sampled => ({ ids: [], logprobs: [], tops: [], reason: undefined }));
  const params = { temperature: 1, topP: 1, topK: 0, maxTokens: 16, ...request.params };
  for await (const event of model.sample({ seed: 1, stopIds: [], ...request, n, params })) {
    if (!("index" in event)) {
      onEvent(event);
      continue;
    }
    const sequence = out[event.index]!;
    if (event.type === "finish") sequence.reason = event.reason;
    else {
      sequence.ids.push(event.id);
      sequence.logprobs.push(event.logprob);
      if (event.top) sequence.tops.push(event.top);
    }
    onEvent(event);
  }
  return out;
}

/** Whole (to − from, V) matrix of log-probs. */
export async function distributionsOf(
  model: EngineModel,
  request: { ids: Int32Array; from: number; to: number; temperature: number },
): Promise<Float32Array> {
  const out = new Float32Array((request.to - request.from) * model.vocabSize);
  let at = 0;
  for await (const chunk of model.distributions(request)) {
    out.set(chunk, at);
    at += chunk.length;
  }
  if (at !== out.length) throw new Error(`distributions yielded ${at} numbers instead of ${out.length}`);
  return out;
}

/** Largest absolute difference; arrays of different length are infinitely apart. */
export function farthest(actual: ArrayLike<number>, expected: ArrayLike<number | null>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < actual.length; i++) most = Math.max(most, Math.abs(actual[i]! - (expected[i] ?? Number.NaN)));
  return most;
}

/** Waits until `check` holds; fails after two seconds. */
export async function eventually(check: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !check(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  if (!check()) throw new Error("did not become true within two seconds");
}
