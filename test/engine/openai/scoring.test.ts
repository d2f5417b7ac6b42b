/** `logprobs` and `distributions` at one server, against the toy model computed directly. */
import { expect, test } from "vitest";
import { connect, eventually, fake, farthest, score } from "./fixture.ts";
import { bestOf, ownLogprobs, rankOf, rowsOf, TOY, type Toy } from "./toy-model.ts";

const TEXT = Int32Array.of(9, 140, 33, 7, 7, 299, 0, 58, 61, 200, 17, 250, 4, 4, 91, 120);
const ROUNDING = 1e-5;

function entropyOf(row: Float32Array): number {
  return row.reduce((sum, logprob) => sum - Math.exp(logprob) * logprob, 0);
}

function divergence(p: Float32Array, q: Float32Array): number {
  return p.reduce((sum, logprob, id) => sum + Math.exp(logprob) * (logprob - q[id]!), 0);
}

async function* chunksOf(rows: readonly Float32Array[], size: number): AsyncGenerator<Float32Array> {
  for (let i = 0; i < rows.length; i += size) {
    const part = rows.slice(i, i + size);
    const chunk = new Float32Array(part.length * part[0]!.length);
    part.forEach((row, j) => {
      chunk.set(row, j * row.length);
    });
    yield chunk;
  }
}

test("at temperature 1 the log-probs are the server's own, of the whole text and of a part", async () => {
  const server = await fake();
  const { model, of } = await connect([server]);
  const all = await score(model, TEXT);
  expect(all).toMatchObject({ from: 1, to: 16 });
  expect(farthest(all.logprobs, ownLogprobs(TOY, TEXT))).toBeLessThan(1e-6);
  expect(all.errorBound).toBeUndefined();
  expect(all.rank).toBeUndefined();
  expect(server.completions()[0]!.body).toMatchObject({ max_tokens: 1, temperature: 0, prompt_logprobs: 0 });
  expect(server.completions()[0]!.body).not.toHaveProperty("prompt_logprobs_temperature");
  const part = await score(model, TEXT, { from: 5, to: 9 });
  expect(part).toMatchObject({ from: 5, to: 9 });
  expect(farthest(part.logprobs, ownLogprobs(TOY, TEXT).slice(4, 8))).toBeLessThan(1e-6);
  // What follows the part is not computed.
  expect(server.completions()[1]!.body.prompt).toEqual([...TEXT.subarray(0, 9)]);
  const none = await score(model, TEXT, { from: 4, to: 4 });
  expect(none.logprobs).toHaveLength(0);
  expect(server.completions()).toHaveLength(2);
  expect(of("request").map(({ kind }) => kind)).toEqual(["score", "score"]);
});

test("ranks and alternatives", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  const { rank, topIds, topLogprobs } = await score(model, TEXT, { rank: true, topK: 4 });
  rowsOf(TOY, TEXT).forEach((row, i) => {
    expect(rank![i]).toBe(rankOf(row, TEXT[i + 1]!));
    const best = bestOf(row, 4);
    expect([...topIds!.subarray(i * 4, i * 4 + 4)]).toEqual(best);
    const expected = best.map((id) => row[id]!);
    expect(farthest(topLogprobs!.subarray(i * 4, i * 4 + 4), expected)).toBeLessThan(1e-6);
  });
  expect(topIds).toHaveLength(60);
  await expect(score(model, TEXT, { topK: 21 })).rejects.toMatchObject({ code: "unsupported_by_backend" });
});

test("at another temperature: estimates whose bound covers the truth, also of the alternatives", async () => {
  for (const vocabSize of [300, 20_000]) {
    const toy: Toy = { ...TOY, vocabSize };
    const server = await fake({ toy });
    const { model } = await connect([server]);
    expect(model.capabilities).toMatchObject({ exact_temperatures: [1], at_ids: false });
    for (const temperature of [0.7, 1.5]) {
      const { logprobs, errorBound, topLogprobs, topIds } = await score(model, TEXT, { temperature, topK: 2 });
      const rows = rowsOf(toy, TEXT, temperature);
      rows.forEach((row, i) => {
        const bound = errorBound![i]!;
        expect(bound).toBeGreaterThan(0);
        expect(Math.abs(logprobs[i]! - row[TEXT[i + 1]!]!)).toBeLessThanOrEqual(bound + ROUNDING);
        const best = bestOf(row, 2);
        expect([...topIds!.subarray(i * 2, i * 2 + 2)]).toEqual(best);
        best.forEach((id, j) => {
          expect(Math.abs(topLogprobs![i * 2 + j]! - row[id]!)).toBeLessThanOrEqual(bound + ROUNDING);
        });
      });
    }
  }
});

test("who wants no estimate is told what the server can do instead", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  const refused = await score(model, TEXT, { temperature: 0.7, exact: true }).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "unsupported_by_backend" });
  expect((refused as Error).message).toContain("tempered: 0.7");
  expect(server.completions()).toEqual([]);
  const exact = await score(model, TEXT, { temperature: 1, exact: true });
  expect(farthest(exact.logprobs, ownLogprobs(TOY, TEXT))).toBeLessThan(1e-6);
});

test("a tempered copy scores exactly at its temperature", async () => {
  const server = await fake({ toy: { ...TOY, divisor: 0.7 } });
  const { model } = await connect([server], { tempered: 0.7 });
  expect(model.capabilities.exact_temperatures).toEqual([0.7]);
  const { logprobs, errorBound } = await score(model, TEXT, { temperature: 0.7, exact: true });
  expect(farthest(logprobs, ownLogprobs(TOY, TEXT, 0.7))).toBeLessThan(1e-5);
  expect(errorBound).toBeUndefined();
});

test("whole rows: everything about a position, at any temperature, exactly", async () => {
  const server = await fake({ maxLogprobs: -1 });
  const { model } = await connect([server]);
  expect(model.capabilities).toMatchObject({
    exact_temperatures: null,
    at_ids: true,
    distributions: true,
  });
  const atWidth = 3;
  const at = Int32Array.from({ length: 15 * atWidth }, (_, i) => (i * 37) % 300);
  for (const temperature of [1, 0.7, 1.5]) {
    const rows = rowsOf(TOY, TEXT, temperature);
    const others = rowsOf({ ...TOY, salt: 9 }, TEXT, temperature);
    const reference = chunksOf(others, 4);
    const wanted = { temperature, exact: true, rank: true, entropy: true, topK: 25, at, atWidth, reference };
    const result = await score(model, TEXT, wanted);
    expect(result.errorBound).toBeUndefined();
    rows.forEach((row, i) => {
      const own = TEXT[i + 1]!;
      expect(Math.abs(result.logprobs[i]! - row[own]!)).toBeLessThan(ROUNDING);
      expect(result.rank![i]).toBe(rankOf(row, own));
      expect(Math.abs(result.entropy![i]! - entropyOf(row))).toBeLessThan(1e-4);
      expect(Math.abs(result.kl![i]! - divergence(others[i]!, row))).toBeLessThan(1e-4);
      expect([...result.topIds!.subarray(i * 25, i * 25 + 25)]).toEqual(bestOf(row, 25));
      for (let j = i * atWidth; j < (i + 1) * atWidth; j++) {
        expect(Math.abs(result.at![j]! - row[at[j]!]!)).toBeLessThan(ROUNDING);
      }
    });
  }
});

test("whole rows also where only the entropy, or more alternatives than usual, need them", async () => {
  const server = await fake({ maxLogprobs: -1 });
  const { model } = await connect([server]);
  const rows = rowsOf(TOY, TEXT);
  const { entropy } = await score(model, TEXT, { entropy: true });
  expect(farthest(entropy!, rows.map(entropyOf))).toBeLessThan(1e-4);
  const { topIds } = await score(model, TEXT, { topK: 40 });
  expect([...topIds!.subarray(0, 40)]).toEqual(bestOf(rows[0]!, 40));
  const before = server.completions().length;
  await score(model, TEXT, { rank: true });
  expect(
    server
      .completions()
      .slice(before)
      .map(({ body }) => body.prompt_logprobs),
  ).toEqual([0]);
});

test("distributions come in chunks, at any temperature; a span has the rows of its span", async () => {
  const server = await fake({ maxLogprobs: -1 });
  const { model } = await connect([server]);
  const ids = Int32Array.from({ length: 60 }, (_, i) => (i * 71 + 5) % 300);
  for (const [from, to, temperature] of [
    [1, 60, 0.7],
    [40, 60, 1],
    [7, 8, 1.5],
  ] as const) {
    const sizes: number[] = [];
    const rows: Float32Array[] = [];
    for await (const chunk of model.distributions({ ids, from, to, temperature })) {
      sizes.push(chunk.length / 300);
      for (let i = 0; i < chunk.length; i += 300) rows.push(chunk.slice(i, i + 300));
    }
    expect(Math.max(...sizes)).toBeLessThanOrEqual(16);
    const expected = rowsOf(TOY, ids, temperature).slice(from - 1, to - 1);
    expect(rows).toHaveLength(expected.length);
    expected.forEach((row, i) => {
      expect(farthest(rows[i]!, row)).toBeLessThan(ROUNDING);
    });
  }
});

test("whole rows are refused where the server, or the size of the answer, does not allow them", async () => {
  const usual = await connect([await fake()]);
  const at = Int32Array.of(1);
  await expect(score(usual.model, TEXT, { from: 3, to: 4, at, atWidth: 1 })).rejects.toMatchObject({
    code: "unsupported_by_backend",
  });
  const distributions = usual.model.distributions({ ids: TEXT, from: 1, to: 4, temperature: 1 });
  await expect(distributions[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "unsupported_by_backend" });
  const large = await connect([await fake({ maxLogprobs: -1, toy: { vocabSize: 9000 } })]);
  expect(large.model.capabilities).toMatchObject({ distributions: false, exact_temperatures: [1] });
  const long = await connect([await fake({ maxLogprobs: -1, toy: { vocabSize: 4000 } })]);
  const ids = new Int32Array(200).fill(7);
  await expect(score(long.model, ids, { temperature: 0.7 })).rejects.toMatchObject({ code: "unsupported_by_backend" });
});

test("a server that scales, and skips what nobody asked for, is asked to (Preceptor)", async () => {
  const server = await fake({ preceptor: true, maxLogprobs: -1 });
  const { model } = await connect([server]);
  expect(model.capabilities).toMatchObject({ exact_temperatures: null });
  const result = await score(model, TEXT, { from: 6, temperature: 0.7, topK: 3, rank: true });
  const rows = rowsOf(TOY, TEXT, 0.7).slice(5);
  expect(
    farthest(
      result.logprobs,
      rows.map((row, i) => row[TEXT[i + 6]!]!),
    ),
  ).toBeLessThan(1e-6);
  expect(result.errorBound).toBeUndefined();
  expect(server.completions()[0]!.body).toMatchObject({
    max_tokens: 0,
    prompt_logprobs_temperature: 0.7,
    prompt_logprobs_from: 6,
  });
  const at = Int32Array.from({ length: 10 }, (_, i) => i);
  const exact = await score(model, TEXT, { from: 6, temperature: 0.7, at, atWidth: 1 });
  expect(
    farthest(
      exact.at!,
      rows.map((row, i) => row[i]!),
    ),
  ).toBeLessThan(ROUNDING);
  // A text that fills the context leaves no room for a token behind it, and needs none.
  const full = Int32Array.from({ length: 256 }, (_, i) => i);
  expect((await score(model, full)).logprobs).toHaveLength(255);
});

test("several texts are scored side by side, in order; the cached tokens are counted", async () => {
  const server = await fake({ preceptor: true });
  const { model } = await connect([server]);
  const texts = [TEXT, TEXT.subarray(0, 5), Int32Array.from({ length: 40 }, (_, i) => i)];
  server.settings.tokenMs = 300;
  const scoring = model.logprobs({ sequences: texts.map((ids) => ({ ids })), temperature: 1 });
  await eventually(() => server.completions().length === 3);
  expect(model.load().scoring).toBe(3);
  const results = await scoring;
  server.settings.tokenMs = 0;
  results.forEach(({ logprobs }, i) => {
    expect(farthest(logprobs, ownLogprobs(TOY, texts[i]!))).toBeLessThan(1e-6);
  });
  const [again] = await model.logprobs({ sequences: [{ ids: texts[2]! }], temperature: 1 });
  expect(again!.cachedTokens).toBe(32);
  expect(model.load()).toMatchObject({ scoring: 0, cachedTokens: 32, computedTokens: 16 + 5 + 40 + 8 });
});

test("cancelling ends the requests", async () => {
  const server = await fake();
  const { model } = await connect([server]);
  server.settings.tokenMs = 1000;
  const cancelling = new AbortController();
  const scoring = score(model, TEXT, { signal: cancelling.signal });
  await eventually(() => server.completions().length === 1);
  cancelling.abort();
  await expect(scoring).rejects.toMatchObject({ code: "cancelled" });
  await eventually(() => server.seen.disconnects === 1);
  await expect(score(model, TEXT, { signal: cancelling.signal })).rejects.toMatchObject({ code: "cancelled" });
  expect(server.completions()).toHaveLength(1);
  expect(model.load().scoring).toBe(0);
});

test("texts that do not fit, and ids that are none, are refused before anything is sent", async () => {
  const server = await fake({ maxModelLen: 10 });
  const { model } = await connect([server]);
  await expect(score(model, TEXT)).rejects.toMatchObject({ code: "context_length_exceeded" });
  await expect(score(model, Int32Array.of(1, 300))).rejects.toMatchObject({ code: "invalid_token_ids" });
  expect(server.completions()).toEqual([]);
});

test("a text that fills the context leaves no room for the token that vLLM samples behind it", async () => {
  const server = await fake({ maxModelLen: 16, maxLogprobs: -1 });
  const { model } = await connect([server]);
  for (const request of [{}, { temperature: 0.7 }, { from: 15 }]) {
    const refused = await score(model, TEXT, request).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "context_length_exceeded" });
    expect((refused as Error).message).toMatch(/16 tokens .* can score 15: .*shorten the text/);
  }
  const rows = model.distributions({ ids: TEXT, from: 1, to: 16, temperature: 1 });
  await expect(rows[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "context_length_exceeded" });
  expect(server.completions()).toEqual([]);
  // What stands at its end alone needs no score.
  expect((await score(model, TEXT, { to: 15 })).logprobs).toHaveLength(14);
  expect((await score(model, TEXT.subarray(0, 15))).logprobs).toHaveLength(14);
  for (const { body } of server.completions()) {
    expect(body.max_tokens).toBe(1);
    expect(body).not.toHaveProperty("echo");
  }
});

test("a text that fills the context is scored where nothing is sampled", async () => {
  const server = await fake({ maxModelLen: 16, preceptor: true });
  const { model } = await connect([server]);
  const { logprobs } = await score(model, TEXT);
  expect(farthest(logprobs, ownLogprobs(TOY, TEXT))).toBeLessThan(1e-6);
});
