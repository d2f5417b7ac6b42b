import { expect, test } from "vitest";
import { scoreRoutes } from "../../src/api/scores/routes.ts";
import { createScoreService } from "../../src/api/scores/service.ts";
import { createApp } from "../../src/http/app.ts";
import { createFakeRegistry, type FakeRegistryModel } from "./fake-registry.ts";
import { createFakeEngine, createFakeText } from "./fakes.ts";

const wide = (): FakeRegistryModel => ({ engine: createFakeEngine({ contextLength: 8192 }) });

function setUp(models: Record<string, FakeRegistryModel> = { teacher: wide(), student: wide() }) {
  const registry = createFakeRegistry(models);
  const app = createApp({
    routes: [scoreRoutes({ scores: createScoreService({ registry }) })],
    authenticate: null,
    strictJson: true,
  });
  const post = async (body: object) => {
    const response = await app.request("http://127.0.0.1/v1/scores", {
      method: "POST",
      headers: { "content-type": "application/json", host: "127.0.0.1" },
      body: JSON.stringify(body),
    });
    // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
    return { status: response.status, body: (await response.json()) as any };
  };
  return { post, registry };
}

const item = { question: "What is 2+3?", solution: "5", explanation: "Two and three more make five." };

test("explanation and completion with its tag give the same number, and models are given back", async () => {
  const { post, registry } = setUp();
  const completion = `${item.explanation}<|end_of_explanation|> and more`;
  const { status, body } = await post({
    teacher: "teacher",
    student: "student",
    items: [item, { question: item.question, solution: item.solution, completion }],
  });
  expect(status).toBe(200);
  const [clean, raw] = body.data;
  expect(raw.reward).toBeCloseTo(clean.reward, 10);
  expect(raw.format.violations).toEqual(["trailing_text"]);
  expect(clean).toMatchObject({
    object: "score",
    tokens_from: "text",
    warnings: ["foreign_text"],
    temperature: 0.7,
    coefficients: { solution: { mean: 1, min: 0.01 }, kl: { mean: 3, max: 0.03 } },
    student: { id: "student", version: 1 },
    teacher: { id: "teacher", version: 1 },
  });
  expect(clean.reward).toBeCloseTo(clean.solution.reward + clean.kl.reward + clean.format.penalty, 10);
  expect(registry.held()).toBe(0);
});

test("5 and its padded form are one solution", async () => {
  const { post } = setUp();
  const { body } = await post({ student: "student", items: [item, { ...item, solution: "\n\n5\n\n" }] });
  expect(body.data[0].solution.reward).toBe(body.data[1].solution.reward);
  expect(body.data[0].kl).toBeNull();
  expect(body.data[0].reward).toBe(body.data[0].solution.reward);
});

test("an empty explanation costs 3.03 and the penalty; with parity the reference's numbers", async () => {
  const { post } = setUp();
  const empty = { ...item, explanation: "" };
  const usual = (await post({ teacher: "teacher", student: "student", items: [empty] })).body.data[0];
  expect(usual.kl).toBeNull();
  expect(usual.format).toEqual({ ok: false, penalty: -1, violations: ["empty_explanation"] });
  expect(usual.reward).toBeCloseTo(usual.solution.reward - 3.03 - 1, 10);
  const parity = (await post({ teacher: "teacher", student: "student", items: [empty], parity: true })).body.data[0];
  expect(parity.kl).toMatchObject({ mean: 1, max: 1 });
  expect(parity.reward).toBeCloseTo(parity.solution.reward - 3.03, 10);
});

test("tokens cover the texts by byte offsets and carry the model's own numbers", async () => {
  const { post } = setUp();
  const spiky = { ...item, solution: "naïve Ω 5", explanation: "Étape: the sum = 5." };
  const { body } = await post({
    teacher: "teacher",
    student: "student",
    items: [spiky],
    include: ["tokens", "baseline", "progress"],
  });
  const score = body.data[0];
  const bytes = Buffer.from(spiky.explanation);
  for (const token of score.tokens.thought) {
    // A token may be half a character; its text then shows U+FFFD.
    expect(token.text).toBe(new TextDecoder().decode(bytes.subarray(token.start, token.end)));
    expect(token.kl).toBeCloseTo(token.teacher_logprob - token.student_logprob, 5);
    expect(token.rank).toBeGreaterThanOrEqual(1);
    expect(token.entropy).toBeGreaterThan(0);
  }
  const mean =
    score.tokens.thought.reduce((sum: number, t: { kl: number }) => sum + t.kl, 0) / score.tokens.thought.length;
  expect(score.kl.mean).toBeCloseTo(mean, 5);
  expect(score.solution.text).toBe("\n\nnaïve Ω 5\n\n");
  expect(score.tokens.solution.map((t: { baseline_logprob: number }) => typeof t.baseline_logprob)).toContain("number");
  expect(score.baseline.uplift).toBeCloseTo(score.solution.logprob_mean - score.baseline.solution_logprob_mean, 10);
  expect(score.progress.at(-1)).toMatchObject({ end: bytes.length });
  expect(score.progress.at(-1).solution_logprob_mean).toBeCloseTo(score.solution.logprob_mean, 6);
});

test("full equals a sum over the whole vocabulary, topk_tail is a lower bound of it", async () => {
  const { post } = setUp({ teacher: wide(), student: wide() });
  const ask = async (estimator: string) =>
    (
      await post({
        teacher: "teacher",
        student: "student",
        items: [item],
        kl: { estimator },
        include: ["tokens"],
        temperature: 1,
      })
    ).body.data[0];
  const [full, tail] = [await ask("full"), await ask("topk_tail")];
  expect(full.tokens.thought.length).toBeGreaterThan(3);
  full.tokens.thought.forEach((token: { kl: number }, i: number) => {
    expect(token.kl).toBeGreaterThan(0);
    expect(tail.tokens.thought[i].kl).toBeLessThanOrEqual(token.kl + 1e-6);
  });
  expect(full.warnings).toEqual([]);
});

test("two tokenizers: k1 works, full is refused", async () => {
  const other = wide();
  other.text = { ...createFakeText(), tokenizerHash: "sha256:other" };
  const { post } = setUp({ teacher: wide(), student: other });
  const request = { teacher: "teacher", student: "student", items: [item] };
  expect((await post(request)).body.data[0].kl.estimator).toBe("k1");
  const refused = await post({ ...request, kl: { estimator: "full" } });
  expect(refused.status).toBe(400);
  expect(refused.body.error).toMatchObject({ code: "estimator_needs_shared_tokenizer", param: "kl.estimator" });
});

test("one bad item comes back in place and loses no other", async () => {
  const { post } = setUp({ student: { engine: createFakeEngine({ contextLength: 4096 }) } });
  const { status, body } = await post({
    student: "student",
    items: [item, { ...item, explanation: "x".repeat(5000) }, { question: "q", solution: "s" }, item],
  });
  expect(status).toBe(200);
  expect(body.data.map((d: { object: string }) => d.object)).toEqual(["score", "error", "error", "score"]);
  expect(body.data[1].error).toMatchObject({ code: "context_length_exceeded", param: "items.1" });
  expect(body.data[1].error.message).toMatch(/\d+ tokens.*4096/);
  expect(body.data[2].error).toMatchObject({ code: "invalid_value", param: "items.2.explanation" });
});

test("what is wrong with a request is named by its path", async () => {
  const { post } = setUp();
  const wrong = async (body: object) => (await post(body)).body.error;
  expect(await wrong({ student: "student", items: [{ ...item, question: "  " }] })).toMatchObject({
    param: "items.0.question",
  });
  expect(await wrong({ student: "student", items: [] })).toMatchObject({ param: "items" });
  expect(await wrong({ student: "student", itms: [item], items: [item] })).toMatchObject({ code: "unknown_parameter" });
  expect(await wrong({ student: "nobody", items: [item] })).toMatchObject({
    code: "model_not_found",
    param: "student",
  });
  expect(await wrong({ student: "student", items: [item], kl: { estimator: "k9" } })).toMatchObject({
    param: "kl.estimator",
  });
});

test("a row that holds nothing, or far too much, is an error in its place", async () => {
  const { post } = setUp();
  const long = "a".repeat(1_000_001);
  const { status, body } = await post({
    student: "student",
    items: [{ ...item, solution: "" }, { ...item, question: " \n" }, item, { ...item, explanation: long }],
  });
  expect(status).toBe(200);
  expect(body.data.map((each: { object: string }) => each.object)).toEqual(["error", "error", "score", "error"]);
  expect(body.data[0].error).toMatchObject({ code: "invalid_value", param: "items.0.solution" });
  expect(body.data[1].error).toMatchObject({ message: "must not be empty", param: "items.1.question" });
  expect(body.data[3].error).toMatchObject({ code: "invalid_value", param: "items.3.explanation" });
});
