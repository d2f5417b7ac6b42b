/** Writes the explanations of one request and, where asked, ranks them. Knows neither HTTP nor the database. */
import { fail } from "../../errors.ts";
import { teacherFormat } from "../../rlt/formats.ts";
import { teacherPrompt } from "../../rlt/prompts.ts";
import { DEFAULT_COEFFICIENTS } from "../../rlt/reward.ts";
import type { HeldModel } from "../models/registry.ts";
import type { ScoreResource } from "../scores/schemas.ts";
import { scoreItem, scoringPair } from "../scores/service.ts";
import type { Choice, ExplanationResource } from "./schemas.ts";
import { createWriting, type Writing } from "./writing.ts";

export interface GenerateRequest {
  teacher: HeldModel;
  student: HeldModel | null;
  question: string;
  solution: string;
  /** (P) as `preparePrompt` gives them. */
  promptIds: Int32Array;
  sampling: ExplanationResource["sampling"];
  rankBy: Omit<NonNullable<ExplanationResource["rank_by"]>, "student"> | null;
  /** Report ids and log-probs of every token. */
  tokens: boolean;
  signal: AbortSignal;
}

/** What happens while it runs; each call is awaited, so a slow reader slows nothing but itself. */
export interface GenerateEvents {
  started?(): Promise<void> | void;
  delta(index: number, delta: string): Promise<void> | void;
  choice(index: number, reason: Choice["finish_reason"]): Promise<void> | void;
  scored(index: number, score: ScoreResource): Promise<void> | void;
}

export interface Generated {
  choices: Choice[];
  best: number | null;
  completionTokens: number;
  scoredTokens: number;
}

/** The teacher's prompt as text and ids. Throws `context_length_exceeded` with both numbers. */
export async function preparePrompt(
  teacher: Pick<HeldModel, "text" | "format" | "contextLength">,
  question: string,
  solution: string,
): Promise<{ ids: Int32Array; text: string }> {
  const prompt = await teacher.text.encodePrompt(teacherPrompt(teacherFormat(teacher.format), question, solution));
  if (prompt.ids.length >= teacher.contextLength) {
    throw fail(
      "context_length_exceeded",
      `question and solution make a prompt of ${prompt.ids.length} tokens; the teacher's context is ` +
        `${teacher.contextLength} and must hold the explanation too`,
      { param: "question" },
    );
  }
  return prompt;
}

export async function generate(request: GenerateRequest, events: GenerateEvents): Promise<Generated> {
  const { teacher, sampling } = request;
  await events.started?.();
  const format = teacherFormat(teacher.format);
  const writings = Array.from({ length: sampling.n }, () => createWriting(teacher.text, format.close));
  const choices = writings.map((_, index): Choice => ({ index, explanation: "", finish_reason: "cancelled" }));
  const tokens = writings.map((): NonNullable<Choice["tokens"]> => []);
  let completionTokens = 0;

  const stream = teacher.engine.sample({
    promptIds: request.promptIds,
    n: sampling.n,
    params: {
      temperature: sampling.temperature,
      topP: sampling.top_p,
      topK: sampling.top_k,
      maxTokens: sampling.max_tokens,
    },
    seed: sampling.seed,
    stopIds: teacher.eosIds,
    shouldStop: (index, ids) => (writings[index] as Writing).push(ids.at(-1) as number),
    adapter: teacher.adapter,
    signal: request.signal,
  });
  for await (const event of stream) {
    const writing = writings[event.index] as Writing;
    const choice = choices[event.index] as Choice;
    if (event.type === "token") {
      completionTokens++;
      if (request.tokens) tokens[event.index]?.push(describeToken(teacher, event.id, event.logprob));
    } else {
      writing.end();
      choice.finish_reason = event.reason;
    }
    const delta = writing.take();
    choice.explanation += delta;
    if (delta !== "") await events.delta(event.index, delta);
    if (event.type === "finish") await events.choice(event.index, event.reason);
  }
  if (request.tokens) for (const choice of choices) choice.tokens = tokens[choice.index] ?? [];
  const ranked = request.student && !request.signal.aborted ? await rank(request, writings, choices, events) : null;
  return { choices, completionTokens, best: ranked?.best ?? null, scoredTokens: ranked?.tokens ?? 0 };
}

async function rank(
  request: GenerateRequest,
  writings: readonly Writing[],
  choices: Choice[],
  events: GenerateEvents,
): Promise<{ best: number; tokens: number }> {
  const { student, teacher, rankBy, question, solution } = request;
  if (!student || !rankBy) throw fail("internal_error", "ranking without a student");
  const pair = scoringPair(student, teacher);
  const { close } = teacherFormat(teacher.format);
  // Greedy text is scored at temperature 1: a temperature of 0 has no distribution.
  const temperature = request.sampling.temperature || 1;
  let best = 0;
  let bestValue = Number.NEGATIVE_INFINITY;
  let tokens = 0;
  for (const choice of choices) {
    const completion = choice.explanation + (writings[choice.index]?.closed ? close : "");
    const scored = await scoreItem(
      pair,
      { question, solution, completion },
      { temperature, coefficients: DEFAULT_COEFFICIENTS, kl: rankBy.kl, parity: false, include: [] },
      request.signal,
    );
    // The teacher wrote this text itself, a moment ago.
    scored.resource.warnings = scored.resource.warnings.filter((warning) => warning !== "foreign_text");
    choice.score = scored.resource;
    tokens += scored.tokens;
    await events.scored(choice.index, scored.resource);
    const value = rankBy.metric === "reward" ? scored.resource.reward : scored.resource.solution.logprob_mean;
    if (value > bestValue) {
      best = choice.index;
      bestValue = value;
    }
  }
  return { best, tokens };
}

const decoder = new TextDecoder();

function describeToken(
  { text }: HeldModel,
  id: number,
  logprob: number,
): { id: number; text: string; logprob: number } {
  return { id, text: decoder.decode(text.bytesOf(id)), logprob };
}
