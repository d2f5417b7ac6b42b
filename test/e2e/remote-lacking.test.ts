/** The whole program in front of a server that lacks something: prompt log-probs, or life. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type FakeOptions, type FakeVllm, startFake } from "../engine/openai/fake-vllm.ts";
import { type Running, startPreceptor } from "./running.ts";

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

// The fake's tokenizer is a toy; nobody can ask it.
const served = { name: "served", toy: { vocabSize: 512 }, maxModelLen: 4096 };

async function serve(options: FakeOptions = {}): Promise<FakeVllm> {
  const server = await startFake({ ...served, ...options, lacks: ["tokenize", ...(options.lacks ?? [])] });
  onTestFinished(() => server.close());
  return server;
}

async function start(keep?: string): Promise<Running> {
  const front = await startPreceptor({ PRECEPTOR_ALLOWED_HOSTS: "127.0.0.1" }, keep);
  let closed = false;
  const close = async (): Promise<void> => {
    if (!closed) await front.close();
    closed = true;
  };
  onTestFinished(close);
  return { ...front, close };
}

const remote = (id: string, server: FakeVllm) => ({ id, model: `openai+${server.url}#served`, tokenizer: "llama" });

test("a teacher that cannot score texts is ranked by reward, from the log-probs it sampled with", async () => {
  const [blind, exact] = [await serve({ lacks: ["prompt_logprobs"] }), await serve({ preceptor: true })];
  const front = await start();
  const { capabilities } = await front.post<Json>("/v1/teachers", remote("blind", blind));
  expect(capabilities).toMatchObject({ sample: true, logprobs: false });
  await front.post("/v1/students", remote("exact", exact));
  const asked = {
    teacher: "blind",
    question: "What is 2+3?",
    solution: "5",
    n: 2,
    max_tokens: 12,
    include: ["tokens"],
    rank_by: { student: "exact" },
  };
  blind.seen.requests = [];
  const { choices, best } = await front.post<Json>("/v1/explanations", asked);
  expect(best).not.toBeUndefined();
  for (const { score } of choices) {
    // Reported at 1, hence estimates at 0.7.
    expect(score).toMatchObject({ tokens_from: "ids", warnings: ["estimated_logprobs"] });
    expect(score.error_bound).toBeGreaterThan(0);
    expect(score.kl).not.toBeNull();
  }
  expect(blind.completions()).toHaveLength(1);
  // At the temperature that the server reports they are exact.
  const at1 = await front.post<Json>("/v1/explanations", { ...asked, temperature: 1 });
  for (const { score } of at1.choices) expect(score).not.toHaveProperty("error_bound");
  for (const estimator of ["k3", "full", "topk_tail"]) {
    const body = { ...asked, rank_by: { student: "exact", kl: { estimator } } };
    const { error } = await front.post<Json>("/v1/explanations", body, 400);
    expect(error).toMatchObject({ code: "unsupported_by_backend", param: "teacher" });
  }
});

test("tokens, and the acceptance of work in the background, need no server", async () => {
  const server = await serve();
  const dataDir = await mkdtemp(path.join(tmpdir(), "preceptor-e2e-"));
  onTestFinished(() => rm(dataDir, { recursive: true, force: true }));
  const before = await start(dataDir);
  await before.post("/v1/teachers", remote("far", server));
  await before.post("/v1/teachers", { ...remote("told", server), context_length: 2048 });
  const asked = { model: "far", prompt: "What is 2+3?", return_token_strs: true };
  const reached = await before.post<Json>("/v1/tokenize", asked);
  expect(reached.max_model_len).toBe(4096);
  await before.close();
  await server.kill();

  const front = await start(dataDir);
  expect(await front.post("/v1/tokenize", asked)).toEqual({ ...reached, max_model_len: null });
  expect(await front.post("/v1/tokenize", { ...asked, model: "told@1" })).toEqual({ ...reached, max_model_len: 2048 });
  expect(await front.post("/v1/detokenize", { model: "far", tokens: reached.tokens })).toMatchObject({
    prompt: expect.stringContaining(asked.prompt),
  });
  const explain = { teacher: "far", question: "What is 2+3?", solution: "5", max_tokens: 8, seed: 1, background: true };
  const waiting = await front.post<Json>("/v1/explanations", explain);
  expect(waiting).toMatchObject({ status: "queued", sampling: { max_tokens: 8 } });
  // How many ids the server's head has is not known yet, so it is no difference.
  const ranked = { ...explain, rank_by: { student: "llama", kl: { estimator: "full" } } };
  expect(await front.post("/v1/explanations", ranked)).toMatchObject({ status: "queued" });
  // A typing error is still one.
  const { error } = await front.post<Json>("/v1/tokenize", { ...asked, model: "nobody" }, 404);
  expect(error).toMatchObject({ code: "model_not_found", param: "model" });

  server.settings.name = "another";
  await server.revive();
  const failed = async (): Promise<Json> => front.get<Json>(`/v1/explanations/${waiting.id}`);
  await expect.poll(async () => (await failed()).status, { timeout: 20_000 }).toBe("failed");
  expect((await failed()).error).toMatchObject({
    code: "backend_refused",
    message: expect.stringContaining('does not serve "served", but "another"'),
  });
}, 40_000);
