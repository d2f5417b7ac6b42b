import type { Caller } from "../../caller.ts";
import type { ExplanationStore } from "../../db/explanation-store.ts";
import type { ExplanationRecord, NewExplanation } from "../../db/records.ts";
import { newId } from "../../ids.ts";
import { assertSharedTokenizer, type Vocabulary, vocabularyOf } from "../../rlt/compare.ts";
import { DEFAULT_TOP_K } from "../../rlt/kl.ts";
import { nameOf } from "../models/named.ts";
import type { Needs } from "../models/needs.ts";
import type { HeldModel, ModelRegistry, ModelText } from "../models/registry.ts";
import { studentNeeds, teacherNeeds } from "../scores/service.ts";
import { canRankSamples, type GenerateRequest, preparePrompt } from "./generate.ts";
import { type StoredSampling, storedSampling, studentOf, teacherOf } from "./resource.ts";
import { type CreateExplanation, DEFAULT_MAX_TOKENS } from "./schemas.ts";

/** Everything one explanation needs while it is being written. Whoever has it releases the models. */
export interface Run {
  record: ExplanationRecord;
  /** Whether the record is in the database. */
  stored: boolean;
  teacher: HeldModel;
  student: HeldModel | null;
  promptIds: Int32Array;
}

export interface BeginDeps {
  registry: ModelRegistry;
  store: ExplanationStore;
  now: () => Date;
  /** A number in [0, 1), for seeds. */
  random: () => number;
}

/** Random seeds are 32-bit: short enough to copy by hand. */
const SEED_RANGE = 2 ** 32;

/** Checks everything that can be wrong with a request and writes it down, before any work is done. */
export async function begin(deps: BeginDeps, request: CreateExplanation, signal: AbortSignal): Promise<Run> {
  const names = { teacher: request.teacher, student: request.rank_by?.student, signal };
  return withModels(
    deps.registry,
    { ...names, ranking: howToRank(rankingOf(request), request) },
    async (teacher, student) => {
      assertRankable(request, vocabularyOf(teacher), student && vocabularyOf(student));
      const { fresh, promptIds } = await draft(deps, request, teacher, student);
      const at = deps.now();
      const record = request.store ? await deps.store.insert(fresh) : { ...fresh, createdAt: at, updatedAt: at };
      return { record, stored: request.store, promptIds };
    },
  );
}

/** The same for work in the background: it waits in the database, and no model is loaded for the answer. */
export async function enqueue(
  deps: BeginDeps,
  request: CreateExplanation,
  { client }: Pick<Caller, "client">,
): Promise<ExplanationRecord> {
  const ranking = howToRank(rankingOf(request), request);
  const asTeacher = { role: "teacher", param: "teacher", needs: needsOfTeacher(ranking) } as const;
  const teacher = await deps.registry.text(request.teacher, asTeacher);
  const asStudent = { role: "student", param: "rank_by.student", needs: needsOfStudent(ranking) } as const;
  const student = request.rank_by ? await deps.registry.text(request.rank_by.student, asStudent) : null;
  assertRankable(request, teacher, student);
  const { fresh } = await draft(deps, request, teacher, student);
  return deps.store.insert({ ...fresh, sampling: { ...fresh.sampling, client } });
}

/** What waits in the database begins, or begins again: versions and seed are stored, so it becomes what it would have been. */
export async function beginAgain(deps: BeginDeps, record: ExplanationRecord, signal: AbortSignal): Promise<Run> {
  const names = {
    teacher: nameOf(teacherOf(record)),
    student: studentOf(record) && nameOf(studentOf(record)!),
  };
  const ranking = howToRank(record.rankBy as GenerateRequest["rankBy"], storedSampling(record));
  return withModels(deps.registry, { ...names, signal, ranking }, async (teacher) => {
    const prompt = await preparePrompt(teacher, record.question, record.solution);
    return { record, stored: true, promptIds: prompt.ids };
  });
}

/** What `generate` needs of a run. */
export function generateRequest({ record, teacher, student, promptIds }: Run, caller: Caller): GenerateRequest {
  const sampling = storedSampling(record);
  return {
    teacher,
    student,
    question: record.question,
    solution: record.solution,
    promptIds,
    sampling,
    rankBy: record.rankBy as GenerateRequest["rankBy"],
    tokens: sampling.tokens,
    familiarity: sampling.familiarity ?? false,
    caller,
  };
}

/** The row of a request that has not begun, with every default filled in. Throws `context_length_exceeded`. */
async function draft(
  deps: BeginDeps,
  request: CreateExplanation,
  teacher: HeldModel | ModelText,
  student: HeldModel | ModelText | null,
) {
  const prompt = await preparePrompt(teacher, request.question, request.solution);
  const sampling: StoredSampling = {
    n: request.n,
    temperature: request.temperature,
    top_p: request.top_p,
    top_k: request.top_k,
    // What the context leaves is known when it begins, where it is not known yet.
    max_tokens: Math.min(
      request.max_tokens ?? DEFAULT_MAX_TOKENS,
      (teacher.contextLength ?? Infinity) - prompt.ids.length,
    ),
    seed: request.seed ?? Math.floor(deps.random() * SEED_RANGE),
    background: request.background,
    tokens: request.include.includes("tokens"),
    familiarity: request.include.includes("familiarity"),
  };
  const fresh = {
    id: newId("expl"),
    status: request.background ? ("queued" as const) : ("in_progress" as const),
    teacherId: teacher.id,
    teacherVersion: teacher.version,
    teacherCheckpoint: teacher.checkpoint ?? null,
    studentId: student?.id ?? null,
    studentVersion: student?.version ?? null,
    studentCheckpoint: student?.checkpoint ?? null,
    question: request.question,
    solution: request.solution,
    choices: [],
    best: null,
    usage: { prompt_tokens: prompt.ids.length, completion_tokens: 0, cached_tokens: 0, scored_tokens: 0 },
    sampling: { ...sampling },
    rankBy: rankingOf(request),
    prompt: request.include.includes("prompt") ? prompt.text : null,
    error: null,
    metadata: request.metadata,
  } satisfies NewExplanation;
  return { fresh, promptIds: prompt.ids };
}

type Ranking = Parameters<typeof teacherNeeds>[0] | null;

/** As `generate` scores the choices. */
function howToRank(rankBy: GenerateRequest["rankBy"], { temperature }: { temperature: number }): Ranking {
  return rankBy && { kl: rankBy.kl, temperature: temperature || 1, parity: false };
}

const needsOfTeacher = (ranking: Ranking): Needs => ({
  sample: true,
  ...(ranking && !canRankSamples(ranking) ? teacherNeeds(ranking) : {}),
});
const needsOfStudent = (ranking: Ranking): Needs => (ranking ? studentNeeds(ranking, true) : {});

function rankingOf({ rank_by }: CreateExplanation): GenerateRequest["rankBy"] {
  return rank_by ? { metric: rank_by.metric, kl: rank_by.kl ?? { estimator: "k1", k: DEFAULT_TOP_K } } : null;
}

/** An estimator that cannot work is refused before the first token, not after the last. */
function assertRankable(request: CreateExplanation, teacher: Vocabulary, student: Vocabulary | null): void {
  const ranking = rankingOf(request);
  if (ranking && student) assertSharedTokenizer(teacher, student, ranking.kl.estimator, "rank_by.kl.estimator");
}

async function withModels(
  registry: ModelRegistry,
  names: { teacher: string; student: string | undefined; signal: AbortSignal; ranking: Ranking },
  prepare: (teacher: HeldModel, student: HeldModel | null) => Promise<Pick<Run, "record" | "stored" | "promptIds">>,
): Promise<Run> {
  const { signal, ranking } = names;
  const asTeacher = { role: "teacher", param: "teacher", signal, needs: needsOfTeacher(ranking) } as const;
  const teacher = await registry.hold(names.teacher, asTeacher);
  let student: HeldModel | null = null;
  try {
    if (names.student !== undefined) {
      const needs = needsOfStudent(ranking);
      const how = { role: "student", param: "rank_by.student", signal, beside: teacher, needs } as const;
      student = await registry.hold(names.student, how);
    }
    return { ...(await prepare(teacher, student)), teacher, student };
  } catch (error) {
    teacher.release();
    student?.release();
    throw error;
  }
}
