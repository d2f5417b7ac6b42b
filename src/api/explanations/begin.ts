import { randomInt } from "node:crypto";
import type { ExplanationStore } from "../../db/explanation-store.ts";
import type { ExplanationRecord } from "../../db/records.ts";
import { newId } from "../../http/ids.ts";
import { DEFAULT_TOP_K } from "../../rlt/kl.ts";
import type { HeldModel, ModelRegistry } from "../models/registry.ts";
import { type GenerateRequest, preparePrompt } from "./generate.ts";
import { type StoredSampling, storedSampling } from "./resource.ts";
import { type CreateExplanation, DEFAULT_MAX_TOKENS } from "./schemas.ts";

/** Everything one explanation needs while it is being written. */
export interface Run {
  record: ExplanationRecord;
  /** Whether the record is in the database. */
  stored: boolean;
  teacher: HeldModel;
  student: HeldModel | null;
  promptIds: Int32Array;
  controller: AbortController;
}

interface Deps {
  registry: ModelRegistry;
  store: ExplanationStore;
  now: () => Date;
}

/** Random seeds are 32-bit: short enough to copy by hand. */
const SEED_RANGE = 2 ** 32;

/** Checks everything that can be wrong with a request and writes it down, before any work is done. */
export async function begin(deps: Deps, request: CreateExplanation, signal: AbortSignal): Promise<Run> {
  const rankBy = request.rank_by;
  return withModels(deps, request.teacher, rankBy?.student, signal, async (teacher, student) => {
    const prompt = await preparePrompt(teacher, request.question, request.solution);
    const sampling: StoredSampling = {
      n: request.n,
      temperature: request.temperature,
      top_p: request.top_p,
      top_k: request.top_k,
      max_tokens: Math.min(request.max_tokens ?? DEFAULT_MAX_TOKENS, teacher.contextLength - prompt.ids.length),
      seed: request.seed ?? randomInt(SEED_RANGE),
      background: request.background,
      tokens: request.include.includes("tokens"),
    };
    const fresh = {
      id: newId("expl"),
      status: request.background ? ("queued" as const) : ("in_progress" as const),
      teacherId: teacher.id,
      teacherVersion: teacher.version,
      studentId: student?.id ?? null,
      studentVersion: student?.version ?? null,
      question: request.question,
      solution: request.solution,
      choices: [],
      best: null,
      usage: { prompt_tokens: prompt.ids.length, completion_tokens: 0, cached_tokens: 0, scored_tokens: 0 },
      sampling: { ...sampling },
      rankBy: rankBy ? { metric: rankBy.metric, kl: rankBy.kl ?? { estimator: "k1", k: DEFAULT_TOP_K } } : null,
      prompt: request.include.includes("prompt") ? prompt.text : null,
      error: null,
      metadata: request.metadata,
    };
    const at = deps.now();
    const record = request.store ? await deps.store.insert(fresh) : { ...fresh, createdAt: at, updatedAt: at };
    return { record, stored: request.store, promptIds: prompt.ids };
  });
}

/** Work of an earlier process: versions and seed are stored, so it becomes what it would have been. */
export async function beginAgain(deps: Deps, record: ExplanationRecord): Promise<Run> {
  const student = record.studentId === null ? undefined : `${record.studentId}@${record.studentVersion}`;
  return withModels(deps, `${record.teacherId}@${record.teacherVersion}`, student, undefined, async (teacher) => {
    const prompt = await preparePrompt(teacher, record.question, record.solution);
    return { record, stored: true, promptIds: prompt.ids };
  });
}

/** What `generate` needs of a run. */
export function generateRequest({ record, teacher, student, promptIds, controller }: Run): GenerateRequest {
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
    signal: controller.signal,
  };
}

async function withModels(
  { registry }: Deps,
  teacherName: string,
  studentName: string | undefined,
  signal: AbortSignal | undefined,
  prepare: (teacher: HeldModel, student: HeldModel | null) => Promise<Pick<Run, "record" | "stored" | "promptIds">>,
): Promise<Run> {
  const teacher = await registry.hold(teacherName, { role: "teacher", param: "teacher", signal });
  let student: HeldModel | null = null;
  try {
    if (studentName !== undefined) {
      student = await registry.hold(studentName, { role: "student", param: "rank_by.student", signal });
    }
    return { ...(await prepare(teacher, student)), teacher, student, controller: new AbortController() };
  } catch (error) {
    teacher.release();
    student?.release();
    throw error;
  }
}
