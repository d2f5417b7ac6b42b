import { type ExplanationRecord, UNFINISHED } from "../../db/records.ts";
import { unixSeconds } from "../../http/schemas.ts";
import { overall } from "../../rlt/familiarity.ts";
import { type NamedVersion, namedVersion } from "../models/named.ts";
import type { ExplanationResource } from "./schemas.ts";

/** Sampling as stored: what the API echoes, and what taking the work up again after a restart needs. */
export interface StoredSampling {
  n: number;
  temperature: number;
  top_p: number;
  top_k: number;
  max_tokens: number;
  seed: number;
  /** Runs without its caller, so it outlives the process that began it. */
  background: boolean;
  /** Per-token values were asked for. */
  tokens: boolean;
  /** So was how far the problem is from what the models know. Absent in rows older than the question. */
  familiarity?: boolean;
  /** Who asked for work in the background, so that it waits its turn after a restart too. */
  client?: string | undefined;
}

export function storedSampling(record: ExplanationRecord): StoredSampling {
  return record.sampling as unknown as StoredSampling;
}

export function teacherOf({
  teacherId: id,
  teacherVersion: version,
  teacherCheckpoint: checkpoint,
}: ExplanationRecord) {
  return { id, version, checkpoint };
}

export function studentOf(record: ExplanationRecord): NamedVersion | undefined {
  const { studentId: id, studentVersion: version, studentCheckpoint: checkpoint } = record;
  return id === null || version === null ? undefined : { id, version, checkpoint };
}

export function isUnfinished({ status }: ExplanationRecord): boolean {
  return (UNFINISHED as readonly string[]).includes(status);
}

/** `queue`: where it stands if it waits; one that is finished waits no more. */
export function toResource(record: ExplanationRecord, queue?: ExplanationResource["queue"]): ExplanationResource {
  const { background: _, tokens: __, familiarity: ___, client: ____, ...sampling } = storedSampling(record);
  const choices = record.choices as ExplanationResource["choices"];
  const [first, ...others] = choices.flatMap(({ familiarity }) => familiarity ?? []);
  const student = studentOf(record);
  const rankBy = record.rankBy as { metric: string; kl: NonNullable<ExplanationResource["rank_by"]>["kl"] } | null;
  return {
    id: record.id,
    object: "explanation",
    created_at: unixSeconds(record.createdAt),
    status: record.status,
    ...(queue && isUnfinished(record) ? { queue: { ...queue } } : {}),
    teacher: namedVersion(teacherOf(record)),
    question: record.question,
    solution: record.solution,
    choices,
    ...(record.best === null ? {} : { best: record.best }),
    ...(first ? { familiarity: overall([first, ...others]) } : {}),
    ...(rankBy && student ? { rank_by: { student: namedVersion(student), ...rankBy } } : {}),
    ...(record.prompt === null ? {} : { prompt: record.prompt }),
    usage: record.usage,
    sampling,
    ...(record.error === null ? {} : { error: record.error as NonNullable<ExplanationResource["error"]> }),
    metadata: record.metadata,
  };
}
