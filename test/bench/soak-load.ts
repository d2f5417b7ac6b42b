import { setTimeout as delay } from "node:timers/promises";
import { parseEvents } from "../../src/parse-events.ts";
import { type PostOptions, post, readText } from "./post.ts";
import { between, randomFrom, randomIds } from "./random.ts";
import { randomWords } from "./random-words.ts";
import { emptyStream, readTokens } from "./token-stream.ts";

/** One thing a client did. */
export interface Visit {
  what: keyof typeof KINDS;
  /** Sampled tokens it saw. */
  tokens: number;
  /** It was told to come back later (429), and has waited as long as it was told. */
  refused: boolean;
  /** What was not as it should be. */
  fault?: string;
}

type Result = Omit<Visit, "what">;
type Ask = (route: string, body: Record<string, unknown>, options?: PostOptions) => ReturnType<typeof post>;

/** The longest prompt of a completion, and its longest answer: with them no context is ever full. */
const [LEAST_PROMPT, MOST_PROMPT] = [20, 1500];
const [LEAST_TOKENS, MOST_TOKENS] = [8, 200];
/** Texts that several prompts begin with, so that the prefix cache is read and split, not only filled. */
const SHARED_TEXTS = 4;

const KINDS = { stream, leave, chat, explain, score };
/** Out of ten: short things are done more often than long ones. */
const MIX: readonly (keyof typeof KINDS)[] = [
  ...(["stream", "stream", "stream", "leave", "leave", "leave"] as const),
  ...(["chat", "chat", "explain", "score"] as const),
];

/** A client's next visit: a kind by chance, with sizes by chance. */
export async function visit(base: string, next: () => number): Promise<Visit> {
  const what = MIX[between(next, 0, MIX.length - 1)] as keyof typeof KINDS;
  const ask: Ask = (route, body, options) => post(`${base}${route}`, body, options);
  try {
    return { what, ...(await KINDS[what](ask, next)) };
  } catch (error) {
    if (error instanceof Refusal) {
      await delay(error.seconds * 1000);
      return { what, tokens: 0, refused: true };
    }
    return { what, tokens: 0, refused: false, fault: error instanceof Error ? error.message : String(error) };
  }
}

class Refusal extends Error {
  readonly seconds: number;
  constructor(seconds: number) {
    super("refused");
    this.seconds = seconds;
  }
}

async function good(response: Awaited<ReturnType<Ask>>): Promise<typeof response> {
  if (response.statusCode === 200) return response;
  const text = await readText(response);
  const seconds = Number(response.headers["retry-after"]);
  if (response.statusCode === 429 && seconds > 0) throw new Refusal(seconds);
  throw new Error(`${response.statusCode} ${text}`);
}

const done = (tokens: number, fault?: string): Result => ({ tokens, refused: false, ...(fault ? { fault } : {}) });

function completion(next: () => number): Record<string, unknown> {
  const length = between(next, LEAST_PROMPT, MOST_PROMPT);
  const shared = next() < 0.5 ? randomIds(randomFrom(between(next, 1, SHARED_TEXTS)), length >> 1) : [];
  return {
    model: "bench",
    prompt: [...shared, ...randomIds(next, length - shared.length)],
    max_tokens: between(next, LEAST_TOKENS, MOST_TOKENS),
    temperature: 0.7,
    ignore_eos: true,
    return_token_ids: true,
    stream: true,
  };
}

async function stream(ask: Ask, next: () => number): Promise<Result> {
  const body = completion(next);
  const seen = await readTokens(await good(await ask("/v1/completions", body)));
  const whole = seen.complete && seen.tokens === body.max_tokens;
  return done(seen.tokens, seen.error ?? (whole ? undefined : `${seen.tokens} of ${body.max_tokens} tokens`));
}

/** Leaves after some tokens, or after some time, which may be before the first one. */
async function leave(ask: Ask, next: () => number): Promise<Result> {
  const leaving = new AbortController();
  const { signal } = leaving;
  const seen = emptyStream();
  const enough = between(next, 1, MOST_TOKENS >> 1);
  const timer = next() < 0.5 ? setTimeout(() => leaving.abort(), 4000 * next()) : undefined;
  try {
    const response = await good(await ask("/v1/completions", completion(next), { signal }));
    await readTokens(response, seen, (tokens) => void (tokens === enough && leaving.abort()));
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
  }
  return done(seen.tokens, seen.error);
}

async function chat(ask: Ask, next: () => number): Promise<Result> {
  const messages = [{ role: "user", content: randomWords(next, 5, 150) }];
  const body = { model: "bench", messages, max_completion_tokens: between(next, LEAST_TOKENS, 100) };
  if (next() < 0.5) {
    const streamed = { ...body, stream: true, return_token_ids: true };
    const seen = await readTokens(await good(await ask("/v1/chat/completions", streamed)));
    return done(seen.tokens, seen.error ?? (seen.complete ? undefined : "the stream has no end"));
  }
  const text = await readText(await good(await ask("/v1/chat/completions", body)));
  const answer = JSON.parse(text) as { choices: object[]; usage: { completion_tokens: number } };
  return done(answer.usage.completion_tokens, answer.choices.length === 1 ? undefined : text);
}

interface Explanation {
  status: string;
  best?: number;
  choices: { score?: { reward: number } }[];
  usage: { completion_tokens: number };
}

const EXPLANATIONS = 8;

async function explain(ask: Ask, next: () => number): Promise<Result> {
  const body = {
    teacher: "bench",
    question: randomWords(next, 5, 60),
    solution: randomWords(next, 5, 60),
    n: EXPLANATIONS,
    max_tokens: between(next, LEAST_TOKENS, 96),
    rank_by: { student: "bench" },
    stream: next() < 0.5,
  };
  const response = await good(await ask("/v1/explanations", body));
  let made: Explanation | undefined;
  if (body.stream) {
    for await (const { event, data } of parseEvents(response)) {
      if (event === "error") throw new Error(data);
      if (event === "explanation.completed") made = (JSON.parse(data) as { explanation: Explanation }).explanation;
    }
  } else made = JSON.parse(await readText(response)) as Explanation;
  const scored = made?.choices.filter(({ score }) => Number.isFinite(score?.reward)).length;
  const right = made?.status === "completed" && made.best !== undefined && scored === EXPLANATIONS;
  return done(made?.usage.completion_tokens ?? 0, right ? undefined : `explanation ${made?.status}, ${scored} scored`);
}

const ESTIMATORS = ["k1", "k3", "full", "topk_tail"];

async function score(ask: Ask, next: () => number): Promise<Result> {
  const items = Array.from({ length: between(next, 2, 6) }, () => ({
    question: randomWords(next, 5, 60),
    solution: randomWords(next, 5, 60),
    explanation: randomWords(next, 10, 150),
  }));
  const kl = { estimator: ESTIMATORS[between(next, 0, ESTIMATORS.length - 1)] };
  const text = await readText(await good(await ask("/v1/scores", { student: "bench", teacher: "bench", items, kl })));
  const { data } = JSON.parse(text) as { data: { object: string; reward?: number }[] };
  const right = data.length === items.length && data.every(({ reward }) => Number.isFinite(reward));
  return done(0, right ? undefined : text.slice(0, 500));
}
