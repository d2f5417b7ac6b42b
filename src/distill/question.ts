/** One question of a job: its explanations are written, each is read by the student, and all that selection needs is noted. */
import { allSettledOrThrow, mapLimited } from "../concurrency.ts";
import { type ErrorBody, fail, PreceptorError } from "../errors.ts";
import { judgeFormat, parseCompletion } from "../rlt/completion.ts";
import { problemSurprise, surpriseOf } from "../rlt/familiarity.ts";
import { closingTag, type StudentFormat, studentFormat, teacherFormat } from "../rlt/formats.ts";
import { studentText, teacherPrompt } from "../rlt/prompts.ts";
import type { Asking, ScoringModel } from "../rlt/reading.ts";
import type { Sampled } from "../rlt/sampled.ts";
import { type Score, scoreExplanation, solutionBelief } from "../rlt/score.ts";
import { controlTokens } from "../rlt/scored-tokens.ts";
import type { ServedModel } from "../train/job-deps.ts";
import { rollout } from "../train/rollout.ts";
import { derivedSeed } from "../train/seeds.ts";
import type { DistillConfig } from "./config.ts";
import { judgedAgain, type Known } from "./known.ts";
import type { QuestionRecord, SampleRecord, ScoreRecord } from "./records.ts";

export interface Models {
  teacher: ServedModel | null;
  student: ServedModel | null;
}

/** A text to be judged, and the teacher's own draw where it was drawn just now. */
interface Draft {
  completion: string;
  sampled?: Sampled;
  record: Omit<SampleRecord, "violations" | "score" | "error">;
}

export interface Question {
  /** Its number in the dataset. */
  row: number;
  question: string;
  solution: string;
  /** An explanation that is there already, so that nothing is written; null: it should be there, and is not. */
  trace?: string | null;
  /** What the trace was found to be worth before, so that nobody need read it again. */
  known?: Known | undefined;
}

/** Tokens that went through models. */
export interface Spent {
  sampled: number;
  scored: number;
}

/** Scores of one question under way at once: short ones share a batch. */
const PARALLEL_SCORES = 16;

/** What is wrong with the question or one of its texts is in the record; throws what ends the job. */
export async function workOn(
  models: () => Promise<Models>,
  config: DistillConfig,
  question: Question,
  asking: Asking,
): Promise<{ record: QuestionRecord; spent: Spent }> {
  const spent: Spent = { sampled: 0, scored: 0 };
  const { row } = question;
  if (question.known) return { record: judgedAgain(question, question.known, config), spent };
  const { teacher, student } = await models();
  try {
    const drafts =
      question.trace === undefined
        ? await write(teacher!, config, question, asking)
        : [traceDraft(question, closeOf({ teacher, student }))];
    for (const { record } of drafts) spent.sampled += record.tokens;
    const judge = createJudge({ teacher, student }, config, question, asking, spent);
    // All at once: they begin with the same question, which the engine then reads once.
    const [surprise, samples] = await allSettledOrThrow([
      judge.surprise(),
      mapLimited(drafts, PARALLEL_SCORES, judge.sample),
    ]);
    return { record: { row, samples, surprise }, spent };
  } catch (error) {
    return { record: { row, samples: [], surprise: UNKNOWN, error: faultOfRow(error) }, spent };
  }
}

/** Seeds come from (job, row, sample), so a question's explanations do not depend on what else was under way. */
async function write(
  teacher: ServedModel,
  config: DistillConfig,
  question: Question,
  asking: Asking,
): Promise<Draft[]> {
  const { engine, adapter, text, eosIds, contextLength } = teacher;
  const format = teacherFormat(teacher.format);
  const { ids: promptIds } = await text.encodePrompt(teacherPrompt(format, question.question, question.solution));
  const room = contextLength - promptIds.length;
  if (room < 1) {
    throw fail(
      "context_length_exceeded",
      `question and solution make a prompt of ${promptIds.length} tokens; the teacher's context is ${contextLength} and must hold the explanation too`,
    );
  }
  const { temperature, top_p: topP, top_k: topK, max_tokens: most } = config.sampling;
  const drawn = await rollout({ engine, adapter }, text, format, {
    promptIds,
    n: config.samples_per_question,
    temperature,
    topP,
    topK,
    maxTokens: Math.min(most ?? DEFAULT_MAX_TOKENS, room),
    seed: derivedSeed(config.seed, question.row),
    eosIds,
    ...asking,
  });
  return drawn.map(({ text: completion, ids, logprobs, errorBounds, ended }, sample) => ({
    completion,
    sampled: { ids, logprobs, errorBounds },
    record: {
      sample,
      explanation: parseCompletion(completion, format.close).thought,
      tokens: ids.length,
      finish: ended ? "stop" : "length",
    },
  }));
}

/** As `POST /v1/explanations` has it. */
const DEFAULT_MAX_TOKENS = 1_024;

/** A trace is clean text: as if it had been closed properly. */
function traceDraft({ trace }: Question, close: string): Draft {
  if (!trace) throw fail("invalid_value", "the row has no reasoning_trace that could be scored");
  return { completion: trace + close, record: { sample: 0, explanation: trace, tokens: 0, finish: null } };
}

const closeOf = ({ teacher, student }: Models): string =>
  closingTag(teacher && teacherFormat(teacher.format), student && studentFormat(student.format));

function createJudge(
  { teacher, student }: Models,
  config: DistillConfig,
  asked: Question,
  asking: Asking,
  spent: Spent,
) {
  const close = closeOf({ teacher, student });
  const { question, solution } = asked;
  const reader = student && { ...modelOf(student), format: studentFormat(student.format) };
  const writer = teacher && { ...modelOf(teacher), format: teacherFormat(teacher.format) };
  const temperature = scoringTemperature(config);
  const { coefficients, kl } = config;

  let counted: Promise<number> | undefined;
  const ending = (): Promise<number> => (counted ??= endOfTurn(reader!, question));

  async function score(draft: Draft): Promise<Score> {
    const found = await scoreExplanation(
      reader!,
      writer,
      { question, solution, completion: draft.completion, close, ...(draft.sampled ? { sampled: draft.sampled } : {}) },
      {
        temperature,
        coefficients,
        estimator: kl.estimator,
        topK: kl.k,
        parity: false,
        tokens: false,
        values: true,
        ...asking,
      },
    );
    spent.scored += found.scoredTokens;
    return found;
  }

  return {
    /** Of the problem itself, whatever is written about it. */
    async surprise(): Promise<QuestionRecord["surprise"]> {
      const options = { temperature, ...asking };
      if (writer) {
        const found = await problemSurprise({ teacher: writer, student: reader }, { question, solution }, options);
        spent.scored += found.scoredTokens;
        return { teacher: found.teacher, student: found.student };
      }
      const belief = await solutionBelief(reader!, { question, solution, thought: "" }, options);
      spent.scored += belief.scoredTokens;
      return { teacher: null, student: surpriseOf(belief) };
    },

    async sample(draft: Draft): Promise<SampleRecord> {
      const { record, completion } = draft;
      if (!reader) {
        const controls = teacher ? controlTokens(teacher.text) : [];
        const parsed = parseCompletion(completion, close);
        const { violations } = judgeFormat(parsed, studentFormat(PLAIN), controls, false);
        return { ...record, violations, score: null };
      }
      try {
        const found = await score(draft);
        const tokens = draft.sampled ? record.tokens : (found.tokens?.thought.length ?? 0);
        const textTokens = found.textTokens + (await ending());
        return { ...record, tokens, violations: found.format.violations, score: noted(found, textTokens) };
      } catch (error) {
        const parsed = parseCompletion(completion, close);
        const { violations } = judgeFormat(parsed, reader.format, controlTokens(reader.text), false);
        return { ...record, violations, score: null, error: faultOfRow(error) };
      }
    },
  };
}

const UNKNOWN = { teacher: null, student: null };

/** Greedy text is scored at temperature 1: a temperature of 0 has no distribution. */
export const scoringTemperature = ({ sampling }: Pick<DistillConfig, "sampling">): number => sampling.temperature || 1;

/** Whose tags an explanation must not contain while no student is named. */
const PLAIN = "stratos";

function modelOf({ engine, text, adapter }: ServedModel): Omit<ScoringModel<never>, "format"> {
  return { engine, text, adapter };
}

/** Tokens of the end of the student's turn: nothing that a score looks at, but a student that learns the row learns it too. */
async function endOfTurn(
  { text, format }: Pick<ScoringModel<StudentFormat>, "text" | "format">,
  question: string,
): Promise<number> {
  const request = studentText(format, question, "", "");
  try {
    const open = await text.encodePrompt(request);
    return (await text.encodePrompt({ ...request, endOfTurn: true })).ids.length - open.ids.length;
  } catch (error) {
    // A template that shows no end: it can be read with, and not learnt with.
    if (error instanceof PreceptorError && error.code === "chat_template_failed") return 0;
    throw error;
  }
}

function noted({ reward, solution, kl, format, tokens }: Score, textTokens: number): ScoreRecord {
  return {
    reward,
    solution: { ...solution },
    kl: kl && { mean: kl.mean, max: kl.max, reward: kl.reward },
    penalty: format.penalty,
    text_tokens: textTokens,
    tokens: {
      thought: {
        ends: tokens!.thought.map(({ end }) => end),
        logprobs: tokens!.thought.map(({ student_logprob: value }) => value),
        kl: tokens!.thought.map(({ kl: value }) => value),
      },
      solution: {
        ends: tokens!.solution.map(({ end }) => end),
        logprobs: tokens!.solution.map(({ logprob }) => logprob),
      },
    },
  };
}

/** What a row's own text causes is its own misfortune; anything else ends the job, which goes on when that is mended. */
function faultOfRow(error: unknown): ErrorBody {
  if (error instanceof PreceptorError && FAULTS_OF_ROWS.has(error.code)) return error.toBody();
  throw error;
}

const FAULTS_OF_ROWS: ReadonlySet<string> = new Set(["context_length_exceeded", "invalid_value"]);
