import { mapLimited } from "../../concurrency.ts";
import { fail, PreceptorError } from "../../errors.ts";
import type { StudentFormat, TeacherFormat } from "../../rlt/formats.ts";
import { studentFormat, teacherFormat } from "../../rlt/formats.ts";
import { explanationSteps } from "../../rlt/progress.ts";
import { pad } from "../../rlt/prompts.ts";
import type { ScoringModel } from "../../rlt/reading.ts";
import { type Score, type ScoreOptions, scoreExplanation, solutionBelief } from "../../rlt/score.ts";
import type { HeldModel, ModelRegistry } from "../models/registry.ts";
import type { CreateScores, ScoreItem, ScoreList, ScoreResource } from "./schemas.ts";

export interface ScoreService {
  create(request: CreateScores, signal?: AbortSignal): Promise<ScoreList>;
}

/** Items under way at once: enough to overlap tokenising with computing, few enough to bound what is in flight. */
const PARALLEL_ITEMS = 4;

export function createScoreService(deps: { registry: ModelRegistry }): ScoreService {
  return {
    async create(request, signal) {
      const student = await deps.registry.hold(request.student, { role: "student", param: "student", signal });
      let teacher: HeldModel | null = null;
      try {
        if (request.teacher !== undefined) {
          teacher = await deps.registry.hold(request.teacher, { role: "teacher", param: "teacher", signal });
        }
        const pair = scoringPair(student, teacher);
        let scoredTokens = 0;
        const data = await mapLimited(request.items, PARALLEL_ITEMS, async (item, i) => {
          try {
            const { resource, tokens } = await scoreItem(pair, item, request, signal);
            scoredTokens += tokens;
            return resource;
          } catch (error) {
            if (!(error instanceof PreceptorError) || !isFaultOfItem(error)) throw error;
            const param = error.param === undefined ? `items.${i}` : `items.${i}.${error.param}`;
            return { object: "error" as const, error: { ...error.toBody(), param } };
          }
        });
        return { object: "list", data, usage: { scored_tokens: scoredTokens } };
      } finally {
        student.release();
        teacher?.release();
      }
    },
  };
}

export interface ScoringPair {
  student: ScoringModel<StudentFormat> & Named;
  teacher: (ScoringModel<TeacherFormat> & Named) | null;
}

interface Named {
  id: string;
  version: number;
}

export function scoringPair(student: HeldModel, teacher: HeldModel | null): ScoringPair {
  return {
    student: { ...scoringModel(student), format: studentFormat(student.format) },
    teacher: teacher && { ...scoringModel(teacher), format: teacherFormat(teacher.format) },
  };
}

function scoringModel({ id, version, engine, text, adapter }: HeldModel): Omit<ScoringModel<never> & Named, "format"> {
  return { id, version, engine, text, adapter };
}

/** What one item's own text causes; anything else (a dead engine, a lost client) ends the request. */
function isFaultOfItem(error: PreceptorError): boolean {
  return error.status === 400 && error.code !== "estimator_needs_shared_tokenizer";
}

export interface ItemOptions {
  temperature: number;
  coefficients: CreateScores["coefficients"];
  kl: CreateScores["kl"];
  parity: boolean;
  include: CreateScores["include"];
}

/** One item as the API shows it. The same function ranks explanations. */
export async function scoreItem(
  pair: ScoringPair,
  item: ScoreItem,
  request: ItemOptions,
  signal?: AbortSignal,
): Promise<{ resource: ScoreResource; tokens: number }> {
  const close = closingTag(pair);
  const completion = rawCompletion(item, close);
  const include = new Set(request.include);
  const options: ScoreOptions = {
    temperature: request.temperature,
    coefficients: request.coefficients,
    estimator: request.kl.estimator,
    topK: request.kl.k,
    parity: request.parity,
    tokens: include.has("tokens"),
    signal,
  };
  const { question, solution } = item;
  const score = await scoreExplanation(pair.student, pair.teacher, { question, solution, completion, close }, options);
  const resource = toResource(pair, score, request);
  let tokens = score.scoredTokens;
  if (include.has("tokens")) resource.solution.text = pad(solution, pair.student.format.solutionPadding);
  if (include.has("baseline")) {
    const baseline = await solutionBelief(pair.student, { question, solution, thought: "" }, options);
    tokens += baseline.scoredTokens;
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
      resource.progress.push({ end: step.end, solution_logprob_mean: belief.mean });
    }
  }
  return { resource, tokens };
}

/** The tag that ends a teacher's explanation; without a teacher, the one of the preset the student answers in. */
function closingTag({ teacher, student }: ScoringPair): string {
  if (teacher) return teacher.format.close;
  return student.format.name === "r1" ? teacherFormat("r1").close : teacherFormat("stratos").close;
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
    solution: { ...score.solution },
    kl: score.kl,
    format: score.format,
    ...(score.tokens ? { tokens: score.tokens } : {}),
    tokens_from: score.tokensFrom,
    warnings: score.warnings,
    temperature: request.temperature,
    coefficients: request.coefficients,
    parity: request.parity,
    student: { id: student.id, version: student.version },
    teacher: teacher ? { id: teacher.id, version: teacher.version } : null,
  };
}
