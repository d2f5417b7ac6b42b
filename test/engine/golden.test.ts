import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openAdapter } from "../../src/model/adapter.ts";
import {
  distributionsOf,
  FAMILIES,
  farthest,
  type Golden,
  goldenDirectory,
  LEAST_MARGIN,
  LOGIT_TOLERANCE,
  LOGPROB_TOLERANCE,
  type Opened,
  openModel,
  readExpected,
  readGolden,
  sampleAll,
} from "./fixture.ts";

/** What PyTorch and Transformers computed, reached through the engine's front door. */
describe.each(FAMILIES)("%s", (name) => {
  let opened: Opened;
  let golden: Golden;
  beforeAll(async () => {
    golden = await readGolden(name);
    opened = await openModel(goldenDirectory(name));
  });
  afterAll(() => opened?.model.close());
  const sequences = (): { ids: Int32Array }[] => golden.prompts.map(({ ids }) => ({ ids: Int32Array.from(ids) }));

  test("log-probs at temperatures 1 and 0.7, and entropies", async () => {
    for (const [temperature, key] of [
      [1, "logprobs_T1.0"],
      [0.7, "logprobs_T0.7"],
    ] as const) {
      const results = await opened.model.logprobs({ sequences: sequences(), temperature, entropy: true });
      for (const [i, prompt] of golden.prompts.entries()) {
        expect(farthest(results[i]!.logprobs, prompt[key].slice(1))).toBeLessThan(LOGPROB_TOLERANCE);
        if (temperature !== 1) continue;
        // Row j speaks of token j + 1, whose distribution is the one at position j.
        expect(farthest(results[i]!.entropy!, prompt.entropy.slice(0, -1))).toBeLessThan(LOGPROB_TOLERANCE);
      }
    }
  });

  test("logits: whole distributions equal the softmax of the stored ones", async () => {
    const V = opened.model.vocabSize;
    for (const [i, { ids }] of golden.prompts.entries()) {
      const request = { ids: Int32Array.from(ids), from: 1, to: ids.length, temperature: 1 };
      const ours = await distributionsOf(opened.model, request);
      const logits = await readExpected(name, `logits.${i}`);
      let worst = 0;
      for (let row = 0; row < ids.length - 1; row++) {
        const expected = logits.subarray(row * V, (row + 1) * V);
        const normaliser = Math.log(expected.reduce((sum, l) => sum + Math.exp(l), 0));
        for (let v = 0; v < V; v++) worst = Math.max(worst, Math.abs(ours[row * V + v]! - (expected[v]! - normaliser)));
      }
      expect(worst).toBeLessThan(LOGIT_TOLERANCE);
    }
  });

  test("greedy tokens and their log-probs, up to the first doubtful margin", async () => {
    let compared = 0;
    for (const prompt of golden.prompts) {
      const maxTokens = prompt.greedy_ids.length;
      const request = { promptIds: Int32Array.from(prompt.ids), params: { temperature: 0, maxTokens } };
      const [{ ids, logprobs }] = (await sampleAll(opened.model, request)) as [
        Awaited<ReturnType<typeof sampleAll>>[0] & {},
      ];
      const doubtful = prompt.greedy_margin.findIndex((margin) => margin < LEAST_MARGIN);
      const sure = doubtful < 0 ? maxTokens : doubtful;
      expect(ids.slice(0, sure)).toEqual(prompt.greedy_ids.slice(0, sure));
      expect(farthest(logprobs.slice(0, sure), prompt.greedy_logprobs.slice(0, sure))).toBeLessThan(LOGPROB_TOLERANCE);
      compared += sure;
    }
    expect(compared).toBeGreaterThan(50);
  });

  test("an adapter's log-probs, and the base beside it unchanged to the bit", async () => {
    const { model, checkpoint } = opened;
    const adapter = await openAdapter(`${goldenDirectory(name)}/adapter`, checkpoint);
    const batch = golden.train.batch.map((ids) => ({ ids: Int32Array.from(ids) }));
    const before = await model.logprobs({ sequences: batch, temperature: 0.7 });
    const [adapted, base] = await Promise.all([
      model.logprobs({ sequences: batch, temperature: 1, adapter }),
      model.logprobs({ sequences: batch, temperature: 0.7 }),
    ]);
    for (const i of batch.keys()) {
      expect(farthest(adapted[i]!.logprobs, golden.train.lora_logprobs_T1[i]!)).toBeLessThan(LOGPROB_TOLERANCE);
      expect(farthest(base[i]!.logprobs, golden.train["ref_logprobs_T0.7"][i]!)).toBeLessThan(LOGPROB_TOLERANCE);
      expect(base[i]!.logprobs).toEqual(before[i]!.logprobs);
    }
  });
});
