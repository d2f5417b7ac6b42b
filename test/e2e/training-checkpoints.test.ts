/** What sessions and jobs saved, used further: training that goes on from it, a whole model merged from an adapter, explanations that name it. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSafetensorsHeader } from "../../src/model/safetensors.ts";
import type { TrainGolden } from "../engine/training/fixture.ts";
import { GOLDEN, type Running, startPreceptor } from "./running.ts";
import { miniatureDirectory } from "./training-fixture.ts";

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

let server: Running;
let models: string;
beforeAll(async () => {
  models = await mkdtemp(path.join(tmpdir(), "preceptor-checkpoints-"));
  await cp(path.join(GOLDEN, "llama"), path.join(models, "llama"), { recursive: true });
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models, PRECEPTOR_THREADS: "1" });
  await server.post("/v1/teachers", { id: "base", model: "llama" });
});
afterAll(async () => {
  await server?.close();
  await rm(models, { recursive: true, force: true });
});

const { train } = JSON.parse(readFileSync(path.join(GOLDEN, "llama/expected.json"), "utf8")) as { train: TrainGolden };
const body = {
  loss: "cross_entropy",
  data: train.batch.map((tokens, i) => ({ tokens, weights: train.weights[i] })),
};
const open = (how: object): Promise<Json> => server.post("/v1/training/sessions", how, 201);
const call = (id: string, what: string, ask: object): Promise<Json> =>
  server.post(`/v1/training/sessions/${id}/${what}`, ask);
const close = (id: string) => fetch(`${server.url}/v1/training/sessions/${id}`, { method: "DELETE" });

/** Losses and norms of some steps. */
async function steps(id: string, count: number): Promise<number[][]> {
  const seen: number[][] = [];
  for (let i = 0; i < count; i++) {
    const { loss } = await call(id, "forward_backward", body);
    const { step, grad_norm } = await call(id, "optim_step", { learning_rate: 0.01, clip: 1 });
    seen.push([step, loss, grad_norm]);
  }
  return seen;
}

describe.each([
  ["an adapter", { lora: { rank: 4, seed: 5 } }, (id: string) => ({ model: "base", adapter: id })],
  ["an adapter of a model with its name", { lora: { rank: 4, seed: 5 } }, (id: string) => ({ model: `base@${id}` })],
  ["all parameters", { full: true }, (id: string) => ({ model: `base@${id}`, full: true })],
])("%s", (_, begin, from) => {
  test("training goes on where it was saved, to the bit; without its state it begins anew", async () => {
    const { id } = await open({ model: "base", ...begin });
    await steps(id, 2);
    const saved = await call(id, "save", { state: true });
    const bare = await call(id, "save", { state: false });
    const undisturbed = await steps(id, 2);
    await close(id);

    const resumed = await open(from(saved.id));
    expect(resumed).toMatchObject({ step: 2 });
    expect(await steps(resumed.id, 2)).toEqual(undisturbed);
    const next = await call(resumed.id, "save", { state: true });
    expect(next.step).toBe(4);
    await close(resumed.id);
    for (const anew of [from(bare.id), { ...from(saved.id), state: false }]) {
      const session = await open(anew);
      expect(session.step).toBe(0);
      const [first, second] = await steps(session.id, 2);
      // The weights are the same, the optimizer's memory is not.
      expect(first!.slice(1)).toEqual(undisturbed[0]!.slice(1));
      expect(second![1]).not.toBe(undisturbed[1]![1]);
      await close(session.id);
    }
  }, 60_000);
});

test("an adapter's archive, merged, is a model like any other: in the base's types, with the adapter's log-probs", async () => {
  // In single precision, so that nothing is rounded.
  const { directory: from, remove } = await miniatureDirectory();
  await cp(path.join(from, "miniature"), path.join(models, "miniature"), { recursive: true });
  await remove();
  await server.post("/v1/teachers", { id: "mini", model: "miniature" });
  const { id } = await open({ model: "mini", lora: { rank: 4, seed: 5 } });
  const tokens = [{ tokens: [3, 5, 7, 9, 11, 4, 6, 8] }];
  for (let step = 0; step < 3; step++) {
    await call(id, "forward_backward", { loss: "cross_entropy", data: tokens });
    await call(id, "optim_step", { learning_rate: 0.05 });
  }
  const { id: checkpoint } = await call(id, "save", { state: true });
  const { logprobs: learnt } = await call(id, "logprobs", { data: tokens });
  await close(id);

  const response = await fetch(`${server.url}/v1/checkpoints/${checkpoint}/archive?merged=true`);
  const archive = Buffer.from(await response.arrayBuffer());
  expect(archive.length).toBe(Number(response.headers.get("content-length")));
  const file = path.join(models, "merged.tar");
  await writeFile(file, archive);
  execFileSync("tar", ["-xf", file, "-C", models]);
  const directory = path.join(models, checkpoint);
  const names = await readdir(directory);
  expect(names).toEqual(expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json"]));
  expect(names.filter((name) => /adapter|optimizer|trainer/.test(name))).toEqual([]);
  const dtypes = async (of: string) => {
    const { tensors } = await readSafetensorsHeader(path.join(of, "model.safetensors"), "model.safetensors");
    return Object.fromEntries([...tensors].map(([name, { dtype, shape }]) => [name, [dtype, ...shape]]));
  };
  expect(await dtypes(directory)).toEqual(await dtypes(path.join(models, "miniature")));

  await server.post("/v1/teachers", { id: "merged", model: directory });
  const score = async (model: string) => {
    const session = await open({ model });
    const { logprobs } = await call(session.id, "logprobs", { data: tokens });
    await close(session.id);
    return logprobs[0].slice(1) as number[];
  };
  const [merged, plain] = [await score("merged"), await score("mini")];
  const apart = (a: number[], b: number[]) => Math.max(...a.map((value, i) => Math.abs(value - b[i]!)));
  expect(apart(merged, learnt[0].slice(1))).toBeLessThan(1e-4);
  expect(apart(plain, learnt[0].slice(1))).toBeGreaterThan(0.01);
  // Whole checkpoints have nothing to merge.
  const whole = await open({ model: "base", full: true });
  const { id: full } = await call(whole.id, "save", {});
  await close(whole.id);
  expect((await fetch(`${server.url}/v1/checkpoints/${full}/archive?merged=true`)).status).toBe(200);
}, 60_000);

test("what is made with a checkpoint names it, and what waits in the background is made with it too", async () => {
  await server.post("/v1/students", { id: "base", model: "llama" });
  const { id } = await open({ model: "base", lora: { rank: 4, seed: 5 } });
  await steps(id, 3);
  const { id: checkpoint } = await call(id, "save", {});
  await close(id);
  const name = `base@${checkpoint}`;
  const ask = { question: "1 + 2", solution: "3", seed: 5, max_tokens: 12, rank_by: { student: name } };
  const explained = async (more: object): Promise<Json> => server.post("/v1/explanations", { ...ask, ...more });
  const direct = await explained({ teacher: name });
  const made = { id: "base", version: 1, checkpoint };
  expect(direct).toMatchObject({ teacher: made, rank_by: { student: made } });
  expect(direct.choices[0].score).toMatchObject({ teacher: made, student: made });
  expect(await server.get(`/v1/explanations/${direct.id}`)).toEqual(direct);
  const plain = await explained({ teacher: "base" });
  expect(plain.teacher).toEqual({ id: "base", version: 1 });
  expect(plain.choices[0].explanation).not.toBe(direct.choices[0].explanation);
  let waiting = await explained({ teacher: name, background: true });
  while (/queued|in_progress/.test(waiting.status)) waiting = await server.get<Json>(`/v1/explanations/${waiting.id}`);
  expect(waiting).toMatchObject({ status: "completed", teacher: made });
  expect(waiting.choices[0].explanation).toBe(direct.choices[0].explanation);
}, 60_000);
