import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openModel } from "../engine/fixture.ts";
import { miniatureConfig, modelConfig, randomWeights, type Weight, writeModel, writeModelFiles } from "./model.ts";
import { END_ID, VOCABULARY } from "./vocabulary.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "preceptor-miniature-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const deviationOf = ({ data }: Weight): number => Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);

function correlation(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

describe("random weights", () => {
  const config = modelConfig(miniatureConfig("qwen3"));
  const weights = randomWeights(config, 1);
  const weight = (name: string): Weight => weights.get(`model.layers.3.${name}.weight`)!;

  test("are normal, smaller where they write to the residual stream, and 1 in norms", () => {
    // The deviation of 16,384 and more numbers is known to 0.6 %; five of those.
    expect(Math.abs(deviationOf(weight("self_attn.q_proj")) / 0.02 - 1)).toBeLessThan(0.03);
    expect(Math.abs(deviationOf(weight("self_attn.o_proj")) / (0.02 / Math.sqrt(8)) - 1)).toBeLessThan(0.03);
    expect(Math.abs(deviationOf(weight("mlp.down_proj")) / (0.02 / Math.sqrt(8)) - 1)).toBeLessThan(0.03);
    const { data } = weight("mlp.up_proj");
    const beyond = data.filter((x) => Math.abs(x) > 2 * 0.02).length / data.length;
    expect(Math.abs(beyond - 0.0455)).toBeLessThan(0.005);
    expect(weight("self_attn.q_norm").data).toEqual(new Float32Array(32).fill(1));
    expect(weights.get("model.norm.weight")?.data).toEqual(new Float32Array(128).fill(1));
    expect(weights.get("model.embed_tokens.weight")?.shape).toEqual([VOCABULARY.length, 128]);
    expect(weights.has("lm_head.weight")).toBe(false);
  });

  test("are the same for the same seed only", () => {
    const last = (seed: number) => randomWeights(config, seed).get("model.layers.3.mlp.down_proj.weight")!.data;
    const { data } = weight("mlp.down_proj");
    expect(Buffer.compare(Buffer.from(last(1).buffer), Buffer.from(data.buffer))).toBe(0);
    expect(Math.abs(correlation(last(2), data))).toBeLessThan(0.03);
  });
});

test("the files of a model that is not trained yet lack its weights only", async () => {
  const directory = path.join(root, "files");
  await writeModelFiles(directory, miniatureConfig());
  expect((await readdir(directory)).sort()).toEqual(["config.json", "tokenizer.json", "tokenizer_config.json"]);
});

test.each(["llama", "qwen3"] as const)("an untrained %s is loaded and knows nothing", async (family) => {
  const directory = path.join(root, family);
  const file = miniatureConfig(family);
  await writeModel(directory, file, randomWeights(modelConfig(file), 1));
  const { checkpoint, model } = await openModel(directory, 256);
  try {
    expect([checkpoint.config.family, checkpoint.config.tiedHead, checkpoint.eosIds]).toEqual([family, true, [END_ID]]);
    // 48 · 128 embeddings; per layer 4 · 128² + 3 · 128 · 384 and two norms; the last norm; norms of q and k in qwen3.
    const perLayer = 4 * 128 ** 2 + 3 * 128 * 384 + 2 * 128 + (family === "qwen3" ? 2 * 32 : 0);
    expect(checkpoint.parameters).toBe(48 * 128 + 4 * perLayer + 128);
    // Leaps through the whole vocabulary, over and over: no token follows itself.
    const ids = Int32Array.from({ length: 250 }, (_, i) => (i * 7 + Math.floor(i / 48)) % VOCABULARY.length);
    const [result] = await model.logprobs({ sequences: [{ ids, from: 1, to: ids.length }], temperature: 1 });
    const mean = result!.logprobs.reduce((sum, logprob) => sum + logprob, 0) / result!.logprobs.length;
    // A tied head makes it repeat itself a little (its own token's logit is |e|² / rms(e) = 0.02 · 128), others pay for it.
    const others = -Math.log(VOCABULARY.length - 1 + Math.exp(0.02 * 128));
    // The rest: logits have a deviation of 0.02 · sqrt(128), and these are only some of all pairs of tokens.
    expect(Math.abs(mean - others)).toBeLessThan(0.1);
    expect(Math.abs(mean + Math.log(VOCABULARY.length))).toBeLessThan(0.3);
  } finally {
    await model.close();
  }
});
