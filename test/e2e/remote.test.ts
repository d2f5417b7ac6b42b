/** The whole program in front of other servers: a second Preceptor, and a pool of three of which each is bad in its own way. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mapLimited } from "../../src/concurrency.ts";
import { type FakeVllm, startFake } from "../engine/openai/fake-vllm.ts";
import { drawIds } from "../engine/openai/toy-model.ts";
import { type Running, startPreceptor } from "./running.ts";

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

async function metric(server: Running, pattern: RegExp): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${pattern.source}.*? (\\d+)$`, "gm"))].reduce(
    (sum, [, n]) => sum + Number(n),
    0,
  );
}

/** Until it holds, or for ten seconds. */
async function eventually(holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200 && !(await holds()); tries++) await delay(50);
  expect(await holds()).toBe(true);
}

describe("another Preceptor", () => {
  let back: Running;
  let front: Running;
  beforeAll(async () => {
    back = await startPreceptor({ PRECEPTOR_API_KEY: "a-key-of-the-server-behind" });
    front = await startPreceptor({
      PRECEPTOR_ALLOWED_HOSTS: new URL(back.url).host,
      PRECEPTOR_CREDENTIAL_BEHIND: "a-key-of-the-server-behind",
      PRECEPTOR_CREDENTIAL_OTHER: "not-the-key-of-the-server",
    });
    for (const role of ["teachers", "students"]) {
      await front.post(`/v1/${role}`, { id: "far", ...far(), credential: "behind" });
    }
  });
  afterAll(async () => {
    await front?.close();
    await back?.close();
  });

  const far = () => ({ model: `openai+${back.url}/v1#llama`, tokenizer: "llama" });
  const behind = async (route: string, body: object): Promise<Json> => {
    const headers = { "content-type": "application/json", authorization: "Bearer a-key-of-the-server-behind" };
    return (await fetch(back.url + route, { method: "POST", headers, body: JSON.stringify(body) })).json();
  };
  const question = { question: "What is 2+3?", solution: "5", max_tokens: 40, seed: 5, include: ["tokens"] };

  test("an explanation is the one that the other server itself writes, ranked and streamed alike", async () => {
    const asked = { ...question, n: 3 };
    const direct = await behind("/v1/explanations", { ...asked, teacher: "llama" });
    const through = await front.post<Json>("/v1/explanations", { ...asked, teacher: "far" });
    expect(through.choices.map(({ explanation }: Json) => explanation)).toEqual(
      direct.choices.map(({ explanation }: Json) => explanation),
    );
    expect(through.usage).toMatchObject({ completion_tokens: direct.usage.completion_tokens });
    const again = await front.post<Json>("/v1/explanations", { ...asked, teacher: "far" });
    expect(again.usage.cached_tokens).toBeGreaterThan(0);

    const streamed = await fetch(`${front.url}/v1/explanations`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...asked, teacher: "far", stream: true, rank_by: { student: "far" } }),
    });
    const events = (await streamed.text()).split("\n\n").flatMap((block) => {
      const data = /^data: (.*)$/m.exec(block)?.[1];
      return data ? [JSON.parse(data) as Json] : [];
    });
    const written = ["", "", ""];
    for (const { type, index, delta } of events) if (type === "explanation.delta") written[index] += delta;
    expect(written).toEqual(direct.choices.map(({ explanation }: Json) => explanation));
    const { explanation } = events.at(-1);
    expect(events.at(-1).type).toBe("explanation.completed");
    expect(explanation.best).not.toBeNull();
    for (const { score } of explanation.choices) {
      expect(score.kl).not.toBeNull();
      expect(score).not.toHaveProperty("error_bound");
    }
  });

  test("how familiar a problem is comes from the log-probs that the other server reports", async () => {
    const asked = { ...question, n: 2, include: ["familiarity", "prompt"] };
    const direct = await behind("/v1/explanations", { ...asked, teacher: "llama", rank_by: { student: "llama" } });
    const through = await front.post<Json>("/v1/explanations", {
      ...asked,
      teacher: "far",
      rank_by: { student: "far" },
    });
    for (const number of ["kl_mean", "kl_max", "uplift"]) {
      expect(through.familiarity[number]).toBeCloseTo(direct.familiarity[number], 3);
    }
    // The prompt's own log-probs, token by token, wherever the bytes lie wholly in the solution.
    const { choices } = await behind("/v1/completions", {
      model: "llama",
      prompt: direct.prompt,
      add_special_tokens: false,
      max_tokens: 0,
      prompt_logprobs: 0,
      prompt_logprobs_temperature: 0.7,
    });
    const solution = "\n\n5\n\n";
    const start = direct.prompt.indexOf("<|begin_of_solution|>\n") + "<|begin_of_solution|>".length;
    const surprises: number[] = [];
    let end = 0;
    for (const entry of choices[0].prompt_logprobs.slice(1) as Json[]) {
      const { logprob, decoded_token: text } = Object.values<Json>(entry)[0];
      const begin = direct.prompt.indexOf(text, end);
      end = begin + text.length;
      if (begin >= start && end <= start + solution.length) surprises.push(-logprob);
    }
    expect(surprises.length).toBeGreaterThan(0);
    for (const { familiarity } of [direct, through]) {
      expect(familiarity.teacher_surprise.tokens).toBe(surprises.length);
      expect(familiarity.teacher_surprise.max).toBeCloseTo(Math.max(...surprises), 3);
      const mean = surprises.reduce((a, b) => a + b, 0) / surprises.length;
      expect(familiarity.teacher_surprise.mean).toBeCloseTo(mean, 3);
    }
  });

  test("a client that leaves stops the work at the other server", async () => {
    const before = await metric(back, /preceptor_http_requests_total/);
    const leaving = new AbortController();
    const response = await fetch(`${front.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        model: "far",
        prompt: "a",
        max_tokens: 3000,
        ignore_eos: true,
        stream: true,
        return_token_ids: true,
      }),
      signal: leaving.signal,
    });
    const reader = response.body!.getReader();
    await reader.read();
    const busy = async (): Promise<boolean> => {
      const headers = { authorization: "Bearer a-key-of-the-server-behind" };
      const text = await (await fetch(`${back.url}/metrics`, { headers })).text();
      return /^preceptor_sequences_active [1-9]/m.test(text);
    };
    expect(await busy()).toBe(true);
    leaving.abort();
    await eventually(async () => !(await busy()));
    expect(before).toBe(0);
  });

  test.each<[string, object, string, string, RegExp]>([
    ["no credential", {}, "backend_refused", "model", /401.*credential/],
    ["another server's credential", { credential: "other" }, "backend_refused", "model", /401/],
    [
      "a credential that is not there",
      { credential: "nobody" },
      "invalid_value",
      "credential",
      /PRECEPTOR_CREDENTIAL_NOBODY/,
    ],
    ["no tokenizer", { credential: "behind", tokenizer: undefined }, "invalid_value", "tokenizer", /hf:org\/name/],
    [
      "a tokenizer that is not there",
      { credential: "behind", tokenizer: "nothing" },
      "model_source_not_found",
      "tokenizer",
      /nothing/,
    ],
    ["a name that is not served", { credential: "behind", name: "nobody" }, "backend_refused", "model", /llama/],
    [
      "a host that is not allowed",
      { host: "127.0.0.1:1" },
      "model_source_not_allowed",
      "model",
      /PRECEPTOR_ALLOWED_HOSTS/,
    ],
    ["a key in the address", { host: "me:secret@127.0.0.1:1" }, "invalid_value", "model", /credential/],
  ])("%s is refused, with what to do", async (_, { name = "llama", host, ...fields }: Json, code, param, message) => {
    const model = `openai+http://${host ?? new URL(back.url).host}/v1#${name}`;
    const body = { id: "refused", ...far(), model, ...fields };
    const { error } = await front.post<Json>("/v1/teachers", body, 400);
    expect(error).toMatchObject({ code, param });
    expect(error.message).toMatch(message);
    expect(JSON.stringify(error)).not.toMatch(/a-key-of|not-the-key|:secret/);
  });

  test("a deleted model is gone, and may be registered again", async () => {
    await front.post("/v1/teachers", { id: "brief", ...far(), credential: "behind" });
    const gone = await fetch(`${front.url}/v1/teachers/brief`, { method: "DELETE" });
    expect(gone.ok).toBe(true);
    await front.post("/v1/explanations", { ...question, teacher: "brief" }, 404);
    await front.post("/v1/teachers", { id: "brief", ...far(), credential: "behind" });
    await front.post("/v1/explanations", { ...question, teacher: "brief" });
  });
});

describe("three replicas: one is killed, one is slow, one answers garbage", () => {
  const EXPLANATIONS = 500;
  const TOKENS = 10;
  /** Of the tokenizer, in a toy's samples too. */
  const END_OF_TURN = 2;
  const toy = { vocabSize: 512 };
  // The fake's tokenizer is a toy; nobody can ask it.
  const common = { name: "teacher", toy, maxModelLen: 4096, lacks: ["tokenize"] as const };
  let replicas: FakeVllm[];
  let front: Running;
  beforeAll(async () => {
    replicas = await Promise.all([
      // Slow enough that its end finds it in the midst of something.
      startFake({ ...common, tokenMs: 5 }),
      startFake({ ...common, tokenMs: 20 }),
      startFake({ ...common, tokenMs: 1 }),
    ]);
    front = await startPreceptor({ PRECEPTOR_ALLOWED_HOSTS: replicas.map(({ where }) => where).join(",") });
    await front.post("/v1/teachers", {
      id: "pool",
      model: `openai+${replicas.map(({ url }) => url).join(",")}#teacher`,
      tokenizer: "llama",
    });
  });
  afterAll(async () => {
    await front?.close();
    await Promise.all((replicas ?? []).map((replica) => replica.close()));
  });

  test("500 explanations finish, none twice, and the metrics tell what happened", async () => {
    const [mortal, slow, liar] = replicas as [FakeVllm, FakeVllm, FakeVllm];
    let finished = 0;
    const made = await mapLimited(Array.from({ length: EXPLANATIONS }), 24, async (_, seed) => {
      const explanation = await front.post<Json>("/v1/explanations", {
        teacher: "pool",
        question: "What is 2+3?",
        solution: "5",
        max_tokens: TOKENS,
        seed,
        include: ["tokens"],
      });
      finished++;
      if (finished === 60) liar.misbehave({ kind: "alien-ids" });
      if (finished === 120) await mortal.kill();
      return explanation;
    });

    expect(new Set(made.map(({ id }) => id)).size).toBe(EXPLANATIONS);
    expect(made.every(({ status, choices }) => status === "completed" && choices.length === 1)).toBe(true);
    const { prompt } = mortal.completions().at(-1)!.body as unknown as { prompt: number[] };
    const temperature = 0.7;
    let same = 0;
    for (const [seed, { choices, usage }] of made.entries()) {
      const ids = choices[0].tokens.map(({ id }: Json) => id);
      // Every token once: as many as were asked for, or until the end of the turn.
      const end = ids.indexOf(END_OF_TURN);
      expect(ids).toHaveLength(end < 0 ? TOKENS : end + 1);
      expect(choices[0].finish_reason).toBe(end < 0 ? "length" : "stop");
      expect(usage.completion_tokens).toBe(ids.length);
      const drawn = drawIds(toyOf(mortal), prompt, { seed, temperature }, TOKENS);
      const ending = drawn.indexOf(END_OF_TURN);
      const expected = ending < 0 ? drawn : drawn.slice(0, ending + 1);
      if (JSON.stringify(ids) === JSON.stringify(expected)) same++;
      // What went on elsewhere begins with what it had.
      else expect(ids[0]).toBe(expected[0]);
    }
    const resumed = await metric(front, /preceptor_remote_resumed_sequences_total/);
    expect(same).toBeGreaterThanOrEqual(EXPLANATIONS - resumed);
    expect(resumed).toBeGreaterThan(0);

    const failed = (where: string, kind: string): Promise<number> =>
      metric(
        front,
        new RegExp(`preceptor_remote_failures_total\\{model="teacher",replica="${where}",failure="${kind}"`),
      );
    expect(await failed(liar.where, "garbage")).toBeGreaterThan(0);
    expect((await failed(mortal.where, "unreachable")) + (await failed(mortal.where, "failed"))).toBeGreaterThan(0);
    expect(await failed(slow.where, "[a-z]+")).toBe(0);
    const opened = (where: string): Promise<number> =>
      metric(front, new RegExp(`preceptor_remote_breaker_total\\{model="teacher",replica="${where}",to="open"`));
    expect(await opened(liar.where)).toBeGreaterThan(0);
    expect(await opened(mortal.where)).toBeGreaterThan(0);
    // While the others lived, most went to them.
    const served = await metric(
      front,
      new RegExp(`preceptor_remote_requests_total\\{model="teacher",replica="${mortal.where}"`),
    );
    expect(served).toBeGreaterThan(20);
  });

  test("they come back when they are well", async () => {
    const [mortal, , liar] = replicas as [FakeVllm, FakeVllm, FakeVllm];
    await mortal.revive();
    liar.behave();
    const closed = (where: string): Promise<number> =>
      metric(front, new RegExp(`preceptor_remote_breaker_total\\{model="teacher",replica="${where}",to="closed"`));
    for (let tries = 0; tries < 40; tries++) {
      if ((await closed(mortal.where)) > 0 && (await closed(liar.where)) > 0) break;
      await delay(500);
    }
    expect(await closed(mortal.where)).toBeGreaterThan(0);
    expect(await closed(liar.where)).toBeGreaterThan(0);
  }, 30_000);
});

test("a download that does not begin does not hold up the end", async () => {
  const hub = createServer(() => undefined).listen(0, "127.0.0.1");
  await once(hub, "listening");
  const host = `127.0.0.1:${(hub.address() as AddressInfo).port}`;
  const front = await startPreceptor({
    PRECEPTOR_ALLOWED_HOSTS: host,
    HF_ENDPOINT: `http://${host}`,
    HF_HUB_OFFLINE: "0",
  });
  const asked = once(hub, "request");
  const body = { id: "far", model: `openai+http://${host}/v1#m`, tokenizer: "hf:org/name" };
  const registering = front.post("/v1/teachers", body).catch(() => undefined);
  await asked;
  const started = performance.now();
  await front.close();
  expect(performance.now() - started).toBeLessThan(5_000);
  await registering;
  hub.closeAllConnections();
  hub.close();
}, 20_000);

const toyOf = ({ settings }: FakeVllm) => settings.toy;

describe("rewards at temperature 0.7 from servers that report log-probs at 1", () => {
  const toy = { vocabSize: 512 };
  const common = { name: "student", toy, maxModelLen: 4096, lacks: ["tokenize"] as const };
  const items = [
    { question: "What is 2+3?", solution: "5", explanation: "Two and three more make five." },
    { question: "What is 7*6?", solution: "42", explanation: "Seven sixes: 7*5 is 35, and 7 more is 42." },
  ];
  let servers: FakeVllm[];
  let front: Running;
  beforeAll(async () => {
    // vLLM; the same weights tempered; and one that divides by any temperature, which knows the truth.
    servers = await Promise.all([
      startFake(common),
      startFake({ ...common, toy: { ...toy, divisor: 0.7 } }),
      startFake({ ...common, preceptor: true }),
    ]);
    front = await startPreceptor({ PRECEPTOR_ALLOWED_HOSTS: "127.0.0.1" });
    const names = ["plain", "tempered", "exact"];
    for (const [i, id] of names.entries()) {
      const tempered = id === "tempered" ? { tempered: 0.7 } : {};
      const model = { id, model: `openai+${servers[i]!.url}#student`, tokenizer: "llama", ...tempered };
      for (const role of ["teachers", "students"]) await front.post(`/v1/${role}`, model);
    }
  });
  afterAll(async () => {
    await front?.close();
    await Promise.all((servers ?? []).map((server) => server.close()));
  });
  const score = async (student: string, more: object = {}): Promise<Json[]> =>
    (await front.post<Json>("/v1/scores", { student, teacher: student, items, ...more })).data;

  test("a tempered copy gives them exactly", async () => {
    const exact = await score("exact");
    const tempered = await score("tempered", { parity: true });
    exact.forEach(({ reward, solution, kl }, i) => {
      expect(tempered[i]).not.toHaveProperty("error_bound");
      expect(tempered[i].reward).toBeCloseTo(reward, 4);
      expect(tempered[i].solution.logprob_mean).toBeCloseTo(solution.logprob_mean, 4);
      expect(tempered[i].kl.max).toBeCloseTo(kl.max, 4);
    });
  });

  test.each(["k1", "k3"])("otherwise they are estimates whose bound holds (%s)", async (estimator) => {
    const exact = await score("exact", { kl: { estimator } });
    const estimated = await score("plain", { kl: { estimator } });
    exact.forEach(({ reward }, i) => {
      expect(estimated[i].warnings).toContain("estimated_logprobs");
      expect(estimated[i].error_bound).toBeGreaterThan(0);
      expect(Math.abs(estimated[i].reward - reward)).toBeLessThanOrEqual(estimated[i].error_bound);
      expect(estimated[i].reward).not.toBe(reward);
    });
  });

  test("parity, and estimators without a bound, are refused, and who can is named", async () => {
    for (const more of [{ parity: true }, { kl: { estimator: "full" } }, { kl: { estimator: "topk_tail" } }]) {
      const body = { student: "plain", teacher: "exact", items, ...more };
      const { error } = await front.post<Json>("/v1/scores", body, 400);
      expect(error).toMatchObject({ code: "unsupported_by_backend", param: "student" });
    }
    const { error } = await front.post<Json>("/v1/scores", { student: "plain", items, parity: true }, 400);
    expect(error.message).toMatch(/temperature 0\.7 exactly; .+ can$/);
    // At 1 they are what the server reports.
    const [at1] = (await front.post<Json>("/v1/scores", { student: "plain", items, temperature: 1, parity: true }))
      .data;
    expect(at1).not.toHaveProperty("error_bound");
  });
});
