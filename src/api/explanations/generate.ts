/** Writes the explanations of one request and, where asked, ranks them. Knows neither HTTP nor the database. */
import type { Caller, QueuePlace } from "../../caller.ts";
import type { SampleEvent } from "../../engine/engine.ts";
import { fail, PreceptorError } from "../../errors.ts";
import { familiarityOf, type ProblemSurprise } from "../../rlt/familiarity.ts";
import { teacherFormat } from "../../rlt/formats.ts";
import { teacherPrompt } from "../../rlt/prompts.ts";
import { DEFAULT_COEFFICIENTS } from "../../rlt/reward.ts";
import type { Sampled } from "../../rlt/sampled.ts";
import { createWriting, type Writing } from "../../text/writing.ts";
import type { HeldModel, ModelText } from "../models/registry.ts";
import { patiently } from "../patience.ts";
import type { ScoreResource } from "../scores/schemas.ts";
import {
  isFaultOfItem,
  type ScoringPair,
  type ScoringTeacher,
  scoreItem,
  scoringStudent,
  scoringTeacher,
} from "../scores/service.ts";
import type { Choice, ExplanationResource } from "./schemas.ts";
import { surpriseOfProblem } from "./surprise.ts";

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
  /** Report how far the problem is from what the models know. */
  familiarity: boolean;
  caller: Caller;
}

/** What happens while it runs; each call is awaited, so a slow reader slows nothing but itself. */
export interface GenerateEvents {
  /** The engine has taken it: from here on it is no longer refused. */
  accepted?(): Promise<void> | void;
  /** It waits in the engine; called again whenever its place changes. */
  queued?(place: QueuePlace): Promise<void> | void;
  /** It waits no longer. */
  prompt?(): Promise<void> | void;
  delta(index: number, delta: string): Promise<void> | void;
  choice(index: number, reason: Choice["finish_reason"]): Promise<void> | void;
  scored(index: number, score: ScoreResource): Promise<void> | void;
}

export interface Generated {
  choices: Choice[];
  best: number | null;
  /** False: the engine refused it, so nothing was begun. */
  accepted: boolean;
  cachedTokens: number;
  completionTokens: number;
  scoredTokens: number;
  /** What ended it early; everything above holds what was made until then. */
  failure?: { error: unknown };
}

interface Draft {
  writing: Writing;
  /** Kept where the ranking needs it. */
  sampled: Sampled | null;
}

/** k1 compares the sampled tokens alone, so a teacher that cannot score texts can be ranked by the log-probs it drew them with. */
export function canRankSamples({ kl }: Pick<NonNullable<GenerateRequest["rankBy"]>, "kl">): boolean {
  return kl.estimator === "k1";
}

/** One that can is asked again, so that `rank_by` gives the numbers of POST /v1/scores. */
function ranksSamples({ teacher, rankBy }: GenerateRequest): boolean {
  return rankBy !== null && canRankSamples(rankBy) && !teacher.engine.capabilities.logprobs;
}

/** The teacher's prompt as text and ids. Throws `context_length_exceeded` with both numbers, where the context is known. */
export async function preparePrompt(
  teacher: Pick<HeldModel | ModelText, "text" | "format" | "contextLength">,
  question: string,
  solution: string,
): Promise<{ ids: Int32Array; text: string }> {
  const prompt = await teacher.text.encodePrompt(teacherPrompt(teacherFormat(teacher.format), question, solution));
  if (teacher.contextLength !== null && prompt.ids.length >= teacher.contextLength) {
    throw fail(
      "context_length_exceeded",
      `question and solution make a prompt of ${prompt.ids.length} tokens; the teacher's context is ` +
        `${teacher.contextLength} and must hold the explanation too`,
      { param: "question" },
    );
  }
  return prompt;
}

/** Never rejects: what was written before a failure is worth keeping. */
export async function generate(request: GenerateRequest, events: GenerateEvents): Promise<Generated> {
  const { close } = teacherFormat(request.teacher.format);
  const keep = ranksSamples(request);
  const drafts = Array.from(
    { length: request.sampling.n },
    (): Draft => ({
      writing: createWriting(request.teacher.text, close),
      sampled: keep ? { ids: [], logprobs: [], errorBounds: [] } : null,
    }),
  );
  const made: Generated = {
    choices: drafts.map((_, index) => ({
      index,
      explanation: "",
      finish_reason: "cancelled",
      ...(request.tokens ? { tokens: [] } : {}),
    })),
    best: null,
    accepted: false,
    cachedTokens: 0,
    completionTokens: 0,
    scoredTokens: 0,
  };
  try {
    await write(request, events, drafts, made);
    if (!request.caller.signal.aborted) await judge(request, events, drafts, made);
  } catch (error) {
    made.failure = { error };
  }
  return made;
}

async function write(
  request: GenerateRequest,
  events: GenerateEvents,
  drafts: readonly Draft[],
  made: Generated,
): Promise<void> {
  for await (const event of sample(request, drafts)) {
    // While no server of a remote model answers, none has taken it.
    if (!made.accepted && !(event.type === "queued" && event.reason === "backend")) {
      made.accepted = true;
      await events.accepted?.();
    }
    switch (event.type) {
      case "queued":
        await events.queued?.({ position: event.position, reason: event.reason });
        break;
      case "prompt":
        made.cachedTokens = event.cachedTokens;
        await events.prompt?.();
        break;
      case "usage":
        made.cachedTokens = event.cachedTokens;
        break;
      default:
        await add(request.teacher, event, drafts[event.index] as Draft, made, events);
    }
  }
}

function sample(request: GenerateRequest, drafts: readonly Draft[]): AsyncIterable<SampleEvent> {
  const { teacher, sampling, caller, tokens } = request;
  return teacher.engine.sample({
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
    shouldStop: (index, ids) => (drafts[index] as Draft).writing.push(ids.at(-1) as number),
    stopTexts: [teacherFormat(teacher.format).close],
    logprobs: tokens || drafts.some(({ sampled }) => sampled !== null),
    adapter: teacher.adapter,
    ...caller,
  });
}

/** One token, or the end, of one choice. */
async function add(
  teacher: HeldModel,
  event: Extract<SampleEvent, { index: number }>,
  { writing, sampled }: Draft,
  made: Generated,
  events: GenerateEvents,
): Promise<void> {
  const choice = made.choices[event.index] as Choice;
  if (event.type === "token") {
    made.completionTokens++;
    choice.tokens?.push(describeToken(teacher, event));
    sampled?.ids.push(event.id);
    sampled?.logprobs.push(event.logprob);
    sampled?.errorBounds.push(event.errorBound ?? 0);
  } else {
    writing.end();
    choice.finish_reason = event.reason;
  }
  const delta = writing.take();
  choice.explanation += delta;
  if (delta !== "") await events.delta(event.index, delta);
  if (event.type === "finish") await events.choice(event.index, event.reason);
}

/** Says how far the problem is from what the models know, where that was asked, and scores every choice where a student ranks them. */
async function judge(
  request: GenerateRequest,
  events: GenerateEvents,
  drafts: readonly Draft[],
  made: Generated,
): Promise<void> {
  const { question, solution, caller } = request;
  const teacher = scoringTeacher(request.teacher);
  const student = request.student && scoringStudent(request.student);
  // Greedy text is scored at temperature 1: a temperature of 0 has no distribution.
  const temperature = request.sampling.temperature || 1;
  let surprise: ProblemSurprise | null = null;
  if (request.familiarity) {
    const how = { ...caller, temperature };
    surprise = await withoutHaste(() => surpriseOfProblem({ teacher, student }, { question, solution }, how), caller);
    made.scoredTokens += surprise.scoredTokens;
    for (const choice of made.choices) choice.familiarity = familiarityOf(surprise, null);
  }
  if (student) await rank(request, { teacher, student }, { temperature, surprise }, events, drafts, made);
}

async function rank(
  { rankBy, question, solution, caller }: GenerateRequest,
  pair: ScoringPair & { teacher: ScoringTeacher },
  { temperature, surprise }: { temperature: number; surprise: ProblemSurprise | null },
  events: GenerateEvents,
  drafts: readonly Draft[],
  made: Generated,
): Promise<void> {
  if (!rankBy) throw fail("internal_error", "ranking without a metric");
  const { close } = pair.teacher.format;
  const options = { temperature, coefficients: DEFAULT_COEFFICIENTS, kl: rankBy.kl, parity: false, include: [] };
  let bestValue = Number.NEGATIVE_INFINITY;
  for (const choice of made.choices) {
    const { writing, sampled } = drafts[choice.index] as Draft;
    const completion = choice.explanation + (writing.closed ? close : "");
    const score = () => scoreItem(pair, { question, solution, completion }, options, caller, sampled ?? undefined);
    try {
      const { resource, tokens, thoughtTokens } = await withoutHaste(score, caller);
      // The teacher wrote this text itself, a moment ago.
      resource.warnings = resource.warnings.filter((warning) => warning !== "foreign_text");
      choice.score = resource;
      if (surprise) choice.familiarity = familiarityOf(surprise, { ...resource, thoughtTokens });
      made.scoredTokens += tokens;
    } catch (error) {
      // One that is too long for the student does not lose the others.
      if (!(error instanceof PreceptorError && isFaultOfItem(error))) throw error;
      choice.score_error = error.toBody();
      continue;
    }
    await events.scored(choice.index, choice.score);
    const value = rankBy.metric === "reward" ? choice.score.reward : choice.score.solution.logprob_mean;
    if (value > bestValue) {
      made.best = choice.index;
      bestValue = value;
    }
  }
}

/** What a job has written is not thrown away because an engine is busy. */
function withoutHaste<T>(work: () => Promise<T>, { priority, signal }: Caller): Promise<T> {
  return priority === "job" ? patiently(work, signal) : work();
}

/** A byte order mark is a character like any other here. */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

function describeToken(
  { text }: HeldModel,
  { id, logprob, errorBound }: Extract<SampleEvent, { type: "token" }>,
): NonNullable<Choice["tokens"]>[number] {
  const token = { id, text: decoder.decode(text.bytesOf(id)), logprob };
  return errorBound === undefined ? token : { ...token, error_bound: errorBound };
}
