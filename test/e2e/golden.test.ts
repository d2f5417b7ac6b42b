/**
 * The numbers of the reference implementations, over HTTP, as somebody from outside would check them: of a server that computes
 * them itself, and of one that gets them from another server.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { GOLDEN, type Running, startPreceptor } from "./running.ts";

const FAMILIES = ["qwen2", "qwen2-tied", "llama", "llama3-rope", "qwen3", "mistral", "gemma3"] as const;

interface Prompt {
  text: string;
  ids: number[];
  "logprobs_T1.0": (number | null)[];
  "logprobs_T0.7": (number | null)[];
  greedy_ids: number[];
  greedy_margin: number[];
}
interface Expected {
  prompts: Prompt[];
  train: { batch: number[][]; lora_logprobs_T1: number[][]; "ref_logprobs_T0.7": number[][] };
}
// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

interface Completion {
  choices: {
    text: string;
    token_ids: number[];
    prompt_logprobs: (Record<string, { logprob: number; rank: number }> | null)[];
  }[];
}

/** "one": the server loads the checkpoints. "two": it knows them as models of a second server. */
const HOPS = ["one", "two"] as const;
const running: Running[] = [];
const servers = {} as Record<(typeof HOPS)[number], Running>;

beforeAll(async () => {
  servers.one = await startPreceptor();
  running.push(servers.one);
  const { host } = new URL(servers.one.url);
  servers.two = await startPreceptor({ PRECEPTOR_ALLOWED_HOSTS: host });
  running.push(servers.two);
  // What this server found in its models directory gives way; of the checkpoints it needs the tokenizers only.
  for (const family of FAMILIES) {
    for (const role of ["teachers", "students"]) {
      const made = await servers.two.post<Json>(`/v1/${role}`, { id: family, ...remote(family, family) });
      expect(made).toMatchObject({
        status: "ready",
        device: "remote",
        capabilities: { sample: true, logprobs: true, temperature_scoring: true, distributions: true },
      });
    }
  }
});
afterAll(() => Promise.all(running.map((server) => server.close())));

/** The first server's model as the second one knows it. */
function remote(name: string, tokenizer: string): { model: string; tokenizer: string } {
  return { model: `openai+${servers.one.url}/v1#${name}`, tokenizer };
}

const expectedOf = (family: string): Expected =>
  JSON.parse(readFileSync(path.join(GOLDEN, family, "expected.json"), "utf8")) as Expected;

async function promptLogprobs(
  server: Running,
  model: string,
  ids: number[],
  temperature: number,
): Promise<(number | null)[]> {
  const { choices } = await server.post<Completion>("/v1/completions", {
    model,
    prompt: ids,
    max_tokens: 1,
    prompt_logprobs: 0,
    prompt_logprobs_temperature: temperature,
  });
  return (choices[0]?.prompt_logprobs ?? []).map((entry, i) => entry?.[String(ids[i])]?.logprob ?? null);
}

function expectClose(
  actual: readonly (number | null)[],
  expected: readonly (number | null)[],
  tolerance: number,
): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    const wanted = expected[i];
    if (wanted === null || wanted === undefined) expect(value).toBeNull();
    else expect(Math.abs((value as number) - wanted), `token ${i}: ${value} against ${wanted}`).toBeLessThan(tolerance);
  });
}

describe.each(HOPS.flatMap((hops) => FAMILIES.map((family) => ({ hops, family }))))(
  "$family, hops: $hops",
  ({ hops, family }) => {
    const expected = expectedOf(family);

    test("log-probs of prompts at temperature 1 and 0.7", async () => {
      for (const prompt of expected.prompts) {
        expectClose(await promptLogprobs(servers[hops], family, prompt.ids, 1), prompt["logprobs_T1.0"], 1e-3);
        expectClose(await promptLogprobs(servers[hops], family, prompt.ids, 0.7), prompt["logprobs_T0.7"], 1e-3);
      }
    });

    test("token ids of prompts", async () => {
      for (const prompt of expected.prompts) {
        const { tokens } = await servers[hops].post<{ tokens: number[] }>("/v1/tokenize", {
          model: family,
          prompt: prompt.text,
        });
        expect(tokens).toEqual(prompt.ids);
      }
    });

    test("greedy tokens up to the first close call", async () => {
      for (const prompt of expected.prompts) {
        const { choices } = await servers[hops].post<Completion>("/v1/completions", {
          model: family,
          prompt: prompt.ids,
          max_tokens: prompt.greedy_ids.length,
          temperature: 0,
          ignore_eos: true,
          return_token_ids: true,
        });
        const close = prompt.greedy_margin.findIndex((margin) => margin < 1e-3);
        const sure = close < 0 ? prompt.greedy_ids.length : close;
        expect(choices[0]?.token_ids.slice(0, sure)).toEqual(prompt.greedy_ids.slice(0, sure));
      }
    });

    test("an adapter's log-probs, and the bare base beside it", async () => {
      const id = `${family}-lora`;
      const adapted = { id, model: family, adapter: path.join(family, "adapter") };
      await servers[hops].post("/v1/students", hops === "one" ? adapted : { id, ...remote(id, family) });
      for (const [i, ids] of expected.train.batch.entries()) {
        const logprobs = await promptLogprobs(servers[hops], id, ids, 1);
        expectClose(logprobs.slice(1), expected.train.lora_logprobs_T1[i] as number[], 1e-3);
        const base = await promptLogprobs(servers[hops], family, ids, 0.7);
        expectClose(base.slice(1), expected.train["ref_logprobs_T0.7"][i] as number[], 1e-3);
      }
    });
  },
);

interface GoldenCase {
  question: string;
  solution: string;
  completion: string;
  reward: number;
  solution_reward: number;
  kl_reward: number;
  format_reward: number;
  think_kl: number[];
  solution_logprobs: number[];
  estimators?: { k3: number[]; full: number[]; topk_tail: number[]; k: number };
}
interface Score {
  reward: number;
  solution: { reward: number };
  kl: { reward: number; mean: number; max: number } | null;
  format: { penalty: number };
  tokens: { thought: { kl: number }[]; solution: { logprob: number }[] };
}

const rewards = JSON.parse(readFileSync(path.join(GOLDEN, "../rewards.json"), "utf8")) as {
  pairs: { teacher: string; student: string; cases: GoldenCase[] }[];
};

describe.each(HOPS.flatMap((hops) => rewards.pairs.map((pair) => ({ hops, ...pair }))))(
  "rewards of $teacher → $student, hops: $hops",
  ({ hops, teacher, student, cases }) => {
    const items = cases.map(({ question, solution, completion }) => ({ question, solution, completion }));

    test("all twelve, with parity", async () => {
      const { data } = await servers[hops].post<{ data: Score[] }>("/v1/scores", {
        teacher,
        student,
        items,
        parity: true,
        include: ["tokens"],
      });
      expect(data).toHaveLength(cases.length);
      data.forEach((score, i) => {
        const wanted = cases[i] as GoldenCase;
        expect(Math.abs(score.solution.reward - wanted.solution_reward), `case ${i + 1}`).toBeLessThan(2e-3);
        expect(Math.abs((score.kl?.reward ?? Number.NaN) - wanted.kl_reward), `case ${i + 1}`).toBeLessThan(2e-3);
        expect(score.format.penalty).toBe(wanted.format_reward);
        expect(Math.abs(score.reward - wanted.reward), `case ${i + 1}`).toBeLessThan(2e-3);
        expectClose(
          score.tokens.thought.map(({ kl }) => kl),
          wanted.think_kl,
          2e-3,
        );
        expectClose(
          score.tokens.solution.map(({ logprob }) => logprob),
          wanted.solution_logprobs,
          2e-3,
        );
      });
    });

    test.each(["k3", "full", "topk_tail"] as const)("estimator %s per token", async (estimator) => {
      const { data } = await servers[hops].post<{ data: Score[] }>("/v1/scores", {
        teacher,
        student,
        items,
        parity: true,
        kl: { estimator },
        include: ["tokens"],
      });
      data.forEach((score, i) => {
        const wanted = cases[i]?.estimators?.[estimator];
        if (!wanted) return;
        score.tokens.thought.forEach(({ kl }, token) => {
          const value = wanted[token] as number;
          // k3 is e^−kl: an error of the log-probs within tolerance grows with the value.
          const tolerance = 2e-3 * Math.max(1, value);
          expect(Math.abs(kl - value), `case ${i + 1}, token ${token}: ${kl} against ${value}`).toBeLessThan(tolerance);
        });
        expect(score.tokens.thought).toHaveLength(wanted.length);
      });
    });
  },
);

test.each(HOPS)("tokenizer strings and the chat, hops: %s", async (hops) => {
  const golden = JSON.parse(readFileSync(path.join(GOLDEN, "../tokenizer.json"), "utf8")) as {
    tokenizer: {
      strings: { text: string; ids: number[]; decoded: string }[];
      chat: { messages: object[]; text: string };
    };
  };
  for (const { text, ids, decoded } of golden.tokenizer.strings) {
    const { tokens } = await servers[hops].post<{ tokens: number[] }>("/v1/tokenize", { model: "llama", prompt: text });
    expect(tokens).toEqual(ids);
    const { prompt } = await servers[hops].post<{ prompt: string }>("/v1/detokenize", { model: "llama", tokens: ids });
    expect(prompt).toBe(decoded);
  }
  const { chat } = golden.tokenizer;
  const { tokens } = await servers[hops].post<{ tokens: number[] }>("/v1/tokenize", {
    model: "llama",
    messages: chat.messages,
  });
  const raw = await servers[hops].post<{ tokens: number[] }>("/v1/tokenize", { model: "llama", prompt: chat.text });
  expect(tokens).toEqual(raw.tokens);
});
