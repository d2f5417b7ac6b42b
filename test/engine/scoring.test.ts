import { afterAll, beforeAll, expect, test } from "vitest";
import { openAdapter } from "../../src/model/adapter.ts";
import { distributionsOf, farthest, goldenDirectory, type Opened, openModel, readGolden } from "./fixture.ts";

let opened: Opened;
let ids: Int32Array;
/** (T − 1, V) log-probs at 0.7, the material of every comparison below. */
let all: Float32Array;
const T = 0.7;
/** Two orders of summing some hundred numbers in single precision. */
const CLOSE = 1e-5;

beforeAll(async () => {
  opened = await openModel(goldenDirectory("qwen2"));
  const golden = await readGolden("qwen2");
  ids = Int32Array.from(golden.prompts.find((prompt) => prompt.ids.length === 160)!.ids);
  all = await distributionsOf(opened.model, { ids, from: 1, to: ids.length, temperature: T });
});
afterAll(() => opened?.model.close());

const row = (token: number): Float32Array => {
  const V = opened.model.vocabSize;
  return all.subarray((token - 1) * V, token * V);
};

test("every chunk of distributions sums to one and holds at most sixteen rows", async () => {
  const V = opened.model.vocabSize;
  let tokens = 0;
  for await (const chunk of opened.model.distributions({ ids, from: 3, to: 160, temperature: T })) {
    const rows = chunk.length / V;
    expect(rows).toBe(Math.min(16, 157 - tokens));
    for (let r = 0; r < rows; r++) {
      const total = chunk.subarray(r * V, (r + 1) * V).reduce((sum, lp) => sum + Math.exp(lp), 0);
      expect(Math.abs(total - 1)).toBeLessThan(CLOSE);
    }
    tokens += rows;
  }
  expect(tokens).toBe(157);
});

test("log-probs, entropy, rank, top-k and chosen ids agree with the whole distributions", async () => {
  const [from, to, topK, atWidth] = [60, 135, 5, 3];
  const at = Int32Array.from({ length: (to - from) * atWidth }, (_, i) => (i * 37) % opened.model.vocabSize);
  const sequences = [{ ids, from, to, at, atWidth }];
  const [r] = await opened.model.logprobs({ sequences, temperature: T, topK, entropy: true, rank: true });
  for (let j = 0; j < to - from; j++) {
    const lp = row(from + j);
    const own = lp[ids[from + j]!]!;
    expect(Math.abs(r!.logprobs[j]! - own)).toBeLessThan(CLOSE);
    expect(Math.abs(r!.entropy![j]! + lp.reduce((sum, l) => sum + Math.exp(l) * l, 0))).toBeLessThan(CLOSE);
    expect(r!.rank![j]).toBe(1 + lp.filter((l) => l > own).length);
    const best = [...lp.keys()].sort((a, b) => lp[b]! - lp[a]! || a - b).slice(0, topK);
    expect([...r!.topIds!.subarray(j * topK, (j + 1) * topK)]).toEqual(best);
    expect(
      farthest(
        r!.topLogprobs!.subarray(j * topK, (j + 1) * topK),
        best.map((id) => lp[id]!),
      ),
    ).toBeLessThan(CLOSE);
    const chosen = [...at.subarray(j * atWidth, (j + 1) * atWidth)].map((id) => lp[id]!);
    expect(farthest(r!.at!.subarray(j * atWidth, (j + 1) * atWidth), chosen)).toBeLessThan(CLOSE);
  }
  expect(r).toMatchObject({ from, to });
});

test("a range gives the numbers that the whole gives", async () => {
  const whole = (await opened.model.logprobs({ sequences: [{ ids }], temperature: T }))[0]!;
  for (const [from, to] of [
    [1, 2],
    [64, 66],
    [65, 129],
    [1, 160],
    [159, 160],
  ] as const) {
    const part = (await opened.model.logprobs({ sequences: [{ ids, from, to }], temperature: T }))[0]!;
    expect(farthest(part.logprobs, whole.logprobs.subarray(from - 1, to - 1))).toBeLessThan(CLOSE);
  }
});

test("what is not asked for is not there, and empty ranges are empty", async () => {
  const sequences = [{ ids: ids.slice(0, 1) }, { ids, from: 5, to: 5 }];
  const results = await opened.model.logprobs({ sequences, temperature: 1 });
  for (const result of results) {
    expect(Object.keys(result).sort()).toEqual(["cachedTokens", "from", "logprobs", "to"]);
    expect(result.logprobs).toHaveLength(0);
  }
});

test("KL against an adapter of the same model, over the whole vocabulary", async () => {
  const { model, checkpoint } = opened;
  const adapter = await openAdapter(`${goldenDirectory("qwen2")}/adapter`, checkpoint);
  const [from, to] = [40, 100];
  const reference = model.distributions({ ids, from, to, temperature: T, adapter });
  const [result] = await model.logprobs({ sequences: [{ ids, from, to, reference }], temperature: T });
  let at = 0;
  let largest = 0;
  for await (const chunk of model.distributions({ ids, from, to, temperature: T, adapter })) {
    for (let r = 0; r < chunk.length / model.vocabSize; r++) {
      const p = chunk.subarray(r * model.vocabSize, (r + 1) * model.vocabSize);
      const q = row(from + at);
      const kl = p.reduce((sum, lp, v) => sum + Math.exp(lp) * (lp - q[v]!), 0);
      expect(Math.abs(result!.kl![at]! - kl)).toBeLessThan(CLOSE);
      largest = Math.max(largest, kl);
      at++;
    }
  }
  expect(at).toBe(to - from);
  expect(largest).toBeGreaterThan(0.01);
});

test("several comparisons within one model do not wait for each other", async () => {
  const { model } = opened;
  const compare = async (): Promise<number> => {
    const reference = model.distributions({ ids, from: 1, to: 160, temperature: T });
    const [result] = await model.logprobs({ sequences: [{ ids, reference }], temperature: T });
    return Math.max(...result!.kl!.map(Math.abs));
  };
  for (const kl of await Promise.all(Array.from({ length: 6 }, compare))) expect(kl).toBeLessThan(CLOSE);
});

test("a reference that ends early or has another width is refused, and its producer is told to stop", async () => {
  const { model } = opened;
  let returned = false;
  async function* chunks(rows: number, width: number): AsyncGenerator<Float32Array> {
    try {
      yield new Float32Array(rows * width).fill(-Math.log(width));
      yield new Float32Array(rows * width).fill(-Math.log(width));
    } finally {
      returned = true;
    }
  }
  for (const reference of [chunks(1, model.vocabSize), chunks(1, 7)]) {
    returned = false;
    const asked = model.logprobs({ sequences: [{ ids, reference }], temperature: T });
    await expect(asked).rejects.toMatchObject({ code: "invalid_value" });
    expect(returned).toBe(true);
  }
});

test("an aborted request is cancelled; the model goes on", async () => {
  const controller = new AbortController();
  const sequences = Array.from({ length: 20 }, () => ({ ids }));
  const asked = opened.model.logprobs({ sequences, temperature: T, signal: controller.signal });
  controller.abort();
  await expect(asked).rejects.toMatchObject({ code: "cancelled" });
  const [again] = await opened.model.logprobs({ sequences: [{ ids }], temperature: T });
  expect(
    farthest(
      again!.logprobs,
      [...ids.keys()].slice(1).map((t) => row(t)[ids[t]!]!),
    ),
  ).toBeLessThan(CLOSE);
});

test("leaving distributions early stops them", async () => {
  for await (const chunk of opened.model.distributions({ ids, from: 1, to: 160, temperature: T })) {
    expect(chunk.length).toBeGreaterThan(0);
    break;
  }
  const [again] = await opened.model.logprobs({ sequences: [{ ids, from: 159 }], temperature: T });
  expect(again!.logprobs).toHaveLength(1);
});
