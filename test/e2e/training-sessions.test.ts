/** Training over HTTP against what PyTorch and PEFT computed, and sampling and scoring with weights that have just learnt. */
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openAdapter } from "../../src/model/adapter.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import type { TrainGolden } from "../engine/training/fixture.ts";
import { GOLDEN, type Running, startPreceptor } from "./running.ts";

const FAMILIES = ["qwen2", "qwen2-tied", "llama", "llama3-rope", "qwen3", "mistral", "gemma3"] as const;
const LOGPROB_TOLERANCE = 1e-3;
const LOSS_TOLERANCE = 1e-4;
const LOSS_AFTER_STEPS = 1e-3;

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;
interface Golden {
  prompts: { ids: number[]; text: string; entropy: number[]; "logprobs_T1.0": (number | null)[] }[];
  train: TrainGolden;
}

let server: Running;
beforeAll(async () => {
  server = await startPreceptor();
});
afterAll(() => server?.close());

const sessions: string[] = [];
afterEach(async () => {
  for (const id of sessions.splice(0)) await remove(id);
});

async function open(body: object): Promise<Json> {
  const session = await server.post<Json>("/v1/training/sessions", body, 201);
  sessions.push(session.id);
  return session;
}
async function remove(id: string): Promise<void> {
  await fetch(`${server.url}/v1/training/sessions/${id}`, { method: "DELETE" });
}
const call = (id: string, what: string, body: object, status?: number): Promise<Json> =>
  server.post<Json>(`/v1/training/sessions/${id}/${what}`, body, status);

const readGolden = (family: string): Golden =>
  JSON.parse(readFileSync(path.join(GOLDEN, family, "expected.json"), "utf8")) as Golden;

/** The stored batch as a caller sends it. */
function dataOf({ batch, weights, advantages, ...golden }: TrainGolden): object[] {
  return batch.map((tokens, i) => ({
    tokens,
    weights: weights[i],
    advantages: advantages[i],
    ref_logprobs: [null, ...golden["ref_logprobs_T0.7"][i]!],
    old_logprobs: [null, ...golden["old_logprobs_T0.7"][i]!],
  }));
}
const without = (data: object[], ...fields: string[]): object[] =>
  data.map((datum) => Object.fromEntries(Object.entries(datum).filter(([name]) => !fields.includes(name))));

function expectClose(actual: (number | null)[], expected: (number | null)[], tolerance = LOGPROB_TOLERANCE): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    const wanted = expected[i];
    if (wanted === null || wanted === undefined) expect(value).toBeNull();
    else expect(Math.abs((value as number) - wanted), `${i}: ${value} against ${wanted}`).toBeLessThan(tolerance);
  });
}

describe.each(FAMILIES)("%s", (family) => {
  const golden = readGolden(family);
  const { train } = golden;
  const data = dataOf(train);
  const adapter = path.join(family, "adapter");

  test("the losses of an adapter, and its log-probs", async () => {
    const { id, trainable_parameters: parameters } = await open({ model: family, adapter });
    expect(parameters).toBeGreaterThan(1000);
    const asked: [keyof TrainGolden, object][] = [
      ["ce_loss", { loss: "cross_entropy", data: without(data, "advantages", "ref_logprobs", "old_logprobs") }],
      ["grpo_loss", { loss: "grpo", data: without(data, "old_logprobs") }],
      ["importance_sampling_loss", { loss: "importance_sampling", data: without(data, "ref_logprobs") }],
      ["ppo_loss", { loss: "ppo", data: without(data, "ref_logprobs") }],
    ];
    for (const [key, body] of asked) {
      const learnt = await call(id, "forward_backward", body);
      expect(Math.abs(learnt.loss - (train[key] as number)), String(key)).toBeLessThan(LOSS_TOLERANCE);
      const seen = await call(id, "forward", body);
      expect(seen.loss).toBeCloseTo(learnt.loss, 5);
      if (key !== "ce_loss") continue;
      for (const [i, expected] of train.lora_logprobs_T1.entries())
        expectClose(learnt.logprobs[i], [null, ...expected]);
    }
    const { metrics, config } = await call(id, "forward", { loss: "ppo", data, config: { beta: 0 } });
    expect(config).toEqual({ temperature: 0.7, beta: 0, clip_low: 0.2, clip_high: 0.2 });
    expect(Math.abs((await call(id, "forward", { loss: "ppo", data, config })).loss - train.ppo_loss)).toBeLessThan(
      LOSS_TOLERANCE,
    );
    expect(metrics).toMatchObject({ sequences: data.length, tokens: train.batch.flat().length });
    expect(metrics.kl).toBeGreaterThan(0);
    expect(metrics.ratio_mean).toBeGreaterThan(0);
    expect(metrics.clip_fraction).toBeGreaterThanOrEqual(0);
  });

  test("three AdamW steps, then sampling and scoring with the weights they made", async () => {
    const { id } = await open({ model: family, adapter });
    const { lr, betas, eps, weight_decay, clip, losses, grad_norms: norms } = train.adamw;
    const body = { loss: "cross_entropy", data };
    for (const [step, norm] of norms.entries()) {
      const { loss } = await call(id, "forward_backward", body);
      expect(Math.abs(loss - losses[step]!)).toBeLessThan(step === 0 ? LOSS_TOLERANCE : LOSS_AFTER_STEPS);
      const done = await call(id, "optim_step", { learning_rate: lr, betas, eps, weight_decay, clip });
      expect(done.step).toBe(step + 1);
      expect(Math.abs(done.grad_norm - norm)).toBeLessThan(LOSS_AFTER_STEPS);
    }
    const after = await call(id, "forward", body);
    expect(Math.abs(after.loss - losses.at(-1)!)).toBeLessThan(LOSS_AFTER_STEPS);
    await expectAgreement(id, train.batch, after.logprobs);
  });

  test("every parameter: the loss, a step, and sampling with what it made", async () => {
    const { id, full, lora } = await open({ model: family, full: true });
    expect({ full, lora }).toEqual({ full: true, lora: null });
    const body = { loss: "cross_entropy", data };
    const { loss } = await call(id, "forward_backward", body);
    expect(Math.abs(loss - train.full_ce_loss)).toBeLessThan(LOSS_TOLERANCE);
    const [prompt] = golden.prompts;
    const before = await call(id, "logprobs", { data: [{ tokens: prompt!.ids }], entropy: true });
    expectClose(before.logprobs[0], prompt!["logprobs_T1.0"]);
    expectClose(before.entropy[0], prompt!.entropy);
    await call(id, "optim_step", { learning_rate: 0.001 });
    const after = await call(id, "forward", body);
    expect(after.loss).toBeLessThan(loss);
    await expectAgreement(id, train.batch, after.logprobs);
  });

  test("entropies, alternatives and chosen ids of a new adapter are those of the bare model", async () => {
    const { id } = await open({ model: family, lora: { rank: 4 } });
    const tokens = golden.prompts.map(({ ids }) => ({ tokens: ids }));
    const at = golden.prompts.map(({ ids }) => ids.map((token, i) => (i === 0 ? null : i % 2 ? [token] : [token, 0])));
    const scored = await call(id, "logprobs", { data: tokens, entropy: true, top_k: 3, at });
    for (const [i, prompt] of golden.prompts.entries()) {
      expectClose(scored.logprobs[i], prompt["logprobs_T1.0"]);
      expectClose(scored.entropy[i], prompt.entropy);
      expect(scored.top[i][0]).toBeNull();
      expect(scored.at[i][0]).toBeNull();
      for (let t = 1; t < prompt.ids.length; t++) {
        const logprob = scored.logprobs[i][t];
        expect(scored.at[i][t]).toHaveLength(t % 2 ? 1 : 2);
        expect(scored.at[i][t][0]).toBeCloseTo(logprob, 5);
        expect(scored.top[i][t]).toHaveLength(3);
        expect(scored.top[i][t][0].logprob).toBeGreaterThanOrEqual(logprob - 1e-6);
      }
    }
  });

  /** Scoring and sampling go through the serving graphs, `forward` through the training graph. */
  async function expectAgreement(id: string, batch: number[][], logprobs: (number | null)[][]): Promise<void> {
    const scored = await call(id, "logprobs", { data: batch.map((tokens) => ({ tokens })), temperature: 1 });
    for (const [i, expected] of logprobs.entries()) expectClose(scored.logprobs[i], expected);
    const prompt = batch[0]!.slice(0, 8);
    const drawn = await call(id, "sample", { prompt, n: 3, max_tokens: 12, seed: 5, stop: [] });
    expect(drawn.choices).toHaveLength(3);
    const data = drawn.choices.map(({ tokens }: Json) => ({ tokens: [...prompt, ...tokens] }));
    const again = await call(id, "forward", { loss: "cross_entropy", data, config: { temperature: 0.7 } });
    for (const { index, logprobs: own } of drawn.choices) {
      expect(own).toHaveLength(12);
      expectClose(own, again.logprobs[index].slice(prompt.length));
    }
  }
});

test("a saved session is an adapter like any other, with what training goes on from where that is asked for", async () => {
  const { train } = readGolden("llama");
  const { id } = await open({ model: "llama", lora: { r: 4, lora_alpha: 8, target_modules: ["q_proj", "down_proj"] } });
  const body = { loss: "cross_entropy", data: dataOf(train) };
  await call(id, "forward_backward", body);
  await call(id, "optim_step", { learning_rate: 0.01 });
  const saved = await call(id, "save", { state: true }, 201);
  expect(saved).toMatchObject({ object: "checkpoint", step: 1, kind: "adapter", session: id });
  const directory = path.join(server.dataDir, "artifacts", "checkpoints", saved.id);
  expect((await readdir(directory)).sort()).toEqual([
    "adapter_config.json",
    "adapter_model.safetensors",
    "optimizer.safetensors",
    "trainer_state.json",
  ]);
  const checkpoint = await openCheckpoint(path.join(GOLDEN, "llama"));
  expect((await openAdapter(directory, checkpoint)).targets[0]).toMatchObject({ module: "q_proj", rank: 4, scale: 2 });
  const { step } = await server.get<Json>(`/v1/training/sessions/${id}`);
  expect(step).toBe(1);
  const empty = await fetch(`${server.url}/v1/training/sessions/${id}/save`, { method: "POST" });
  expect(empty.status).toBe(201);
});

test("samples of one seed are the same again, other weights make other ones, and steps do not disturb what runs", async () => {
  const { train } = readGolden("qwen3");
  const { id } = await open({ model: "qwen3@1", lora: { rank: 8, seed: 3 } });
  const ask = { prompt: "What is 2+3?", n: 4, max_tokens: 200, seed: 11, stop: [] };
  const first = await call(id, "sample", ask);
  expect(first.choices[0].text).not.toBe("");
  expect(first.sampling).toMatchObject({ temperature: 0.7, seed: 11, top_p: 1, top_k: 0, max_tokens: 200 });
  await call(id, "forward_backward", { loss: "cross_entropy", data: dataOf(train) });
  const [again] = await Promise.all([
    call(id, "sample", ask),
    new Promise((resolve) => setTimeout(resolve, 50)).then(() => call(id, "optim_step", { learning_rate: 0.05 })),
  ]);
  expect(again.choices).toEqual(first.choices);
  const other = await call(id, "sample", ask);
  expect(other.choices).not.toEqual(first.choices);
});

test("who leaves stops the computation, and its gradients are gone", async () => {
  const { train } = readGolden("llama");
  const { id } = await open({ model: "llama" });
  const data = Array.from({ length: 60 }, () => dataOf(train)).flat();
  const leaving = new AbortController();
  const left = fetch(`${server.url}/v1/training/sessions/${id}/forward_backward`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ loss: "cross_entropy", data }),
    signal: leaving.signal,
  });
  setTimeout(() => leaving.abort(), 30);
  await expect(left).rejects.toThrow();
  // At rank 16 with B = 0 the first gradients are not zero, unless they were thrown away.
  expect((await call(id, "optim_step", { learning_rate: 0 })).grad_norm).toBe(0);
});

test("a session leaves no files behind, and is lost afterwards", async () => {
  const { id } = await open({ model: "llama" });
  await call(id, "logprobs", { data: [{ tokens: [1, 2, 3] }] });
  const root = path.join(server.dataDir, "tmp");
  const [own] = await readdir(root);
  expect(await readdir(path.join(root, own!))).toContain(id);
  await remove(id);
  expect(await readdir(path.join(root, own!))).toEqual(["owner.json"]);
  expect((await call(id, "save", {}, 404)).error).toMatchObject({ code: "session_lost", type: "not_found_error" });
});
