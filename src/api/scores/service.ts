import type { Caller } from "../../caller.ts";
import { mapLimited } from "../../concurrency.ts";
import { type ErrorCode, fail, PreceptorError } from "../../errors.ts";
import { assertSharedTokenizer, vocabularyOf } from "../../rlt/compare.ts";
import type { StudentFormat, TeacherFormat } from "../../rlt/formats.ts";
import { closingTag, studentFormat, teacherFormat } from "../../rlt/formats.ts";
import { explanationSteps } from "../../rlt/progress.ts";
import { pad } from "../../rlt/prompts.ts";
import { type Asking, askingOf, type ScoringModel } from "../../rlt/reading.ts";
import type { Sampled } from "../../rlt/sampled.ts";
import { type Score, type ScoreOptions, scoreExplanation, solutionBelief } from "../../rlt/score.ts";
import { type NamedVersion, namedVersion } from "../models/named.ts";
import type { Needs } from "../models/needs.ts";
import type { HeldModel, ModelRegistry } from "../models/registry.ts";
import { type CreateScores, faultOfItem, type ScoreItem, type ScoreList, type ScoreResource } from "./schemas.ts";

export interface ScoreService {
  /** One bad item is an error in its place; where an engine has too much to do the request ends (`queue_full`, `overloaded`). */
  create(request: CreateScores, caller: Caller): Promise<ScoreList>;
}

/** Items under way at once: a group of candidates, so that the engine reads what they share once and short ones together. */
const PARALLEL_ITEMS = 16;

export function createScoreService(deps: { registry: ModelRegistry }): ScoreService {
  return {
    async create(request, caller) {
      const { signal } = caller;
      const student = await deps.registry.hold(request.student, {
        role: "student",
        param: "student",
        signal,
        needs: studentNeeds(request, request.teacher !== undefined),
      });
      let teacher: HeldModel | null = null;
      try {
        if (request.teacher !== undefined) {
          const needs = teacherNeeds(request);
          const hold = { role: "teacher", param: "teacher", signal, beside: student, needs } as const;
          teacher = await deps.registry.hold(request.teacher, hold);
          assertSharedTokenizer(vocabularyOf(teacher), vocabularyOf(student), request.kl.estimator);
        }
        const pair = { student: scoringStudent(student), teacher: teacher && scoringTeacher(teacher) };
        return await scoreItems(pair, request, caller);
      } finally {
        student.release();
        teacher?.release();
      }
    },
  };
}

async function scoreItems(pair: ScoringPair, request: CreateScores, caller: Caller): Promise<ScoreList> {
  const usage = { scored_tokens: 0, cached_tokens: 0 };
  // What ends the request (a dead engine) ends the items beside it too.
  const ended = new AbortController();
  const asking = { ...caller, signal: AbortSignal.any([caller.signal, ended.signal]) };
  const data = await mapLimited(request.items, PARALLEL_ITEMS, async (item, i) => {
    try {
      const { resource, tokens, cachedTokens } = await scoreItem(pair, item, request, asking);
      usage.scored_tokens += tokens;
      usage.cached_tokens += cachedTokens;
      return resource;
    } catch (error) {
      if (error instanceof PreceptorError && isFaultOfItem(error)) {
        const param = error.param === undefined ? `items.${i}` : `items.${i}.${error.param}`;
        return { object: "error" as const, error: { ...error.toBody(), param } };
      }
      ended.abort();
      throw error;
    }
  });
  return { object: "list", data, usage };
}

type HowToScore = Pick<CreateScores, "kl" | "temperature" | "parity">;

/** What scoring asks of a student; with a teacher its log-probs are compared. */
export function studentNeeds({ kl, ...how }: HowToScore, compared: boolean): Needs {
  return {
    logprobs: true,
    at_ids: compared && kl.estimator === "topk_tail",
    distributions: compared && kl.estimator === "full",
    ...exactness(compared ? { kl, ...how } : { ...how, kl: { ...kl, estimator: "k1" } }),
  };
}

export function teacherNeeds({ kl, ...how }: HowToScore): Needs {
  return {
    logprobs: true,
    topk: kl.estimator === "topk_tail",
    distributions: kl.estimator === "full",
    ...exactness({ kl, ...how }),
  };
}

/** Estimates have an error bound for single log-probs only, and none where the reference's numbers are asked for. */
function exactness({ kl, temperature, parity }: HowToScore): Needs {
  const exact = parity || kl.estimator === "full" || kl.estimator === "topk_tail";
  return exact ? { exact_temperatures: [temperature] } : {};
}

export interface ScoringPair {
  student: ScoringStudent;
  teacher: ScoringTeacher | null;
}

export type ScoringStudent = ScoringModel<StudentFormat> & NamedVersion;
export type ScoringTeacher = ScoringModel<TeacherFormat> & NamedVersion;

export function scoringStudent(held: HeldModel): ScoringStudent {
  return { ...scoringModel(held), format: studentFormat(held.format) };
}

export function scoringTeacher(held: HeldModel): ScoringTeacher {
  return { ...scoringModel(held), format: teacherFormat(held.format) };
}

function scoringModel({ id, version, checkpoint, engine, text, adapter }: HeldModel): Omit<ScoringStudent, "format"> {
  return { id, version, checkpoint, engine, text, adapter };
}

/** What one item's own text causes; anything else (a dead engine, a lost client, a model without a template) ends the request. */
export function isFaultOfItem(error: PreceptorError): boolean {
  return error.status === 400 && !FAULTS_OF_MODELS.has(error.code);
}

const FAULTS_OF_MODELS: ReadonlySet<ErrorCode> = new Set([
  "estimator_needs_shared_tokenizer",
  "unsupported_by_backend",
  "chat_template_missing",
  "backend_refused",
]);

export interface ItemOptions {
  temperature: number;
  coefficients: CreateScores["coefficients"];
  kl: CreateScores["kl"];
  parity: boolean;
  include: CreateScores["include"];
}

/** One item as the API shows it. The same function ranks explanations; `sampled`: what the teacher drew for this one. */
export async function scoreItem(
  pair: ScoringPair,
  item: ScoreItem,
  request: ItemOptions,
  asking: Asking,
  sampled?: Sampled,
): Promise<{ resource: ScoreResource; tokens: number; cachedTokens: number; thoughtTokens: number }> {
  const close = closingTag(pair.teacher?.format ?? null, pair.student.format);
  const completion = rawCompletion(item, close);
  const fault = faultOfItem(item);
  if (fault) throw fail("invalid_value", fault.message, { param: fault.field });
  const include = new Set(request.include);
  const options: ScoreOptions = {
    temperature: request.temperature,
    coefficients: request.coefficients,
    estimator: request.kl.estimator,
    topK: request.kl.k,
    parity: request.parity,
    tokens: include.has("tokens"),
    ...askingOf(asking),
  };
  const { question, solution } = item;
  const input = { question, solution, completion, close, ...(sampled ? { sampled } : {}) };
  const score = await scoreExplanation(pair.student, pair.teacher, input, options);
  const resource = toResource(pair, score, request);
  let { scoredTokens: tokens, cachedTokens } = score;
  if (include.has("tokens")) resource.solution.text = pad(solution, pair.student.format.solutionPadding);
  if (include.has("baseline")) {
    const baseline = await solutionBelief(pair.student, { question, solution, thought: "" }, options);
    tokens += baseline.scoredTokens;
    cachedTokens += baseline.cachedTokens;
    resource.baseline = {
      solution_logprob_mean: baseline.mean,
      uplift: score.solution.logprob_mean - baseline.mean,
    };
    for (const token of resource.tokens?.solution ?? []) token.baseline_logprob = baseline.byEnd.get(token.end) ?? null;
  }
  if (include.has("progress")) {
    resource.progress = [];
    for (const step of explanationSteps(completion.split(close)[0] as string)) {
      const belief = await solutionBelief(pair.student, { question, solution, thought: step.text }, options);
      tokens += belief.scoredTokens;
      cachedTokens += belief.cachedTokens;
      resource.progress.push({ end: step.end, solution_logprob_mean: belief.mean });
    }
  }
  return { resource, tokens, cachedTokens, thoughtTokens: score.thoughtTokens };
}

/** Clean text is a completion that closed properly, so both ways of sending it give the same number. */
function rawCompletion(item: ScoreItem, close: string): string {
  if (item.explanation !== undefined && item.completion !== undefined) {
    throw fail("invalid_value", "send either explanation or completion, not both", { param: "completion" });
  }
  if (item.explanation !== undefined) return item.explanation + close;
  if (item.completion !== undefined) return item.completion;
  throw fail("invalid_value", "is required: explanation (clean text) or completion (a teacher's raw output)", {
    param: "explanation",
  });
}

function toResource({ student, teacher }: ScoringPair, score: Score, request: ItemOptions): ScoreResource {
  return {
    object: "score",
    reward: score.reward,
    ...(score.errorBound === null ? {} : { error_bound: score.errorBound }),
    solution: { ...score.solution },
    kl: score.kl,
    format: score.format,
    ...(score.tokens ? { tokens: score.tokens } : {}),
    tokens_from: score.tokensFrom,
    warnings: score.warnings,
    temperature: request.temperature,
    coefficients: request.coefficients,
    parity: request.parity,
    student: namedVersion(student),
    teacher: teacher && namedVersion(teacher),
  };
}
