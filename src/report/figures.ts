/** What a report says of rows, gathered while they pass by. A row may be anybody's: nothing is believed of its provenance. */
import type { DatasetRow } from "../datasets/row.ts";
import { PARTS, type Part } from "../distill/records.ts";
import { begin } from "./markup.ts";
import { type PaintedText, paint, SHOWN_CHARACTERS } from "./painted.ts";

export interface RowFigures {
  /** Rows that passed. */
  rows: number;
  lengths: Record<"question" | "solution" | "reasoning_trace", number[]>;
  parts: Record<Part, number[]>;
  violations: Map<string, number>;
  /** Of rows that were rejected. */
  reasons: Map<string, Rejected>;
  best: ShownRow[];
  worst: ShownRow[];
}

export interface Rejected {
  count: number;
  rewards: number[];
  /** What one of them was rejected for exactly. */
  detail: string | null;
}

export interface ShownRow {
  number: number;
  id: string | null;
  question: string;
  explanation: PaintedText | null;
  solution: PaintedText;
  parts: Partial<Record<Part, number>>;
  reason: string | null;
}

/** Rows shown at each end. */
const SHOWN_ROWS = 10;
/** Different violations and reasons; ours are a dozen, and a file may bring any. */
const NAMES = 30;
const NAME_CHARACTERS = 80;
export const OTHERS = "others";

export interface Gathering {
  add(row: DatasetRow, number: number): void;
  /** Once, when all rows have passed. */
  finish(): RowFigures;
}

/** A row that may yet be shown. Texts are painted at the end: where rewards rise from row to row each one is the best for a while. */
interface Candidate {
  row: DatasetRow;
  number: number;
  parts: ShownRow["parts"] & { reward: number };
}

export function gather(): Gathering {
  const figures: RowFigures = {
    rows: 0,
    lengths: { question: [], solution: [], reasoning_trace: [] },
    parts: Object.fromEntries(PARTS.map((part) => [part, [] as number[]])) as Record<Part, number[]>,
    violations: new Map(),
    reasons: new Map(),
    best: [],
    worst: [],
  };
  const best: Candidate[] = [];
  const worst: Candidate[] = [];
  const { lengths, violations, reasons } = figures;
  return {
    finish: () => Object.assign(figures, { best: best.map(shownRow), worst: worst.map(shownRow) }),
    add(row, number) {
      figures.rows++;
      for (const column of ["question", "solution", "reasoning_trace"] as const) {
        const text = row[column];
        if (text !== undefined) lengths[column].push(text.length);
      }
      const parts = partsIn(row);
      for (const part of PARTS) if (parts[part] !== undefined) figures.parts[part].push(parts[part]);
      const { violations: named, reason, detail } = row.provenance ?? {};
      if (Array.isArray(named)) for (const name of new Set(named)) count(violations, String(name));
      if (typeof reason === "string") reject(reasons, reason, parts.reward, detail);
      const { reward } = parts;
      if (reward === undefined) return;
      const candidate = { row, number, parts: { ...parts, reward } };
      rank(best, candidate, (a, b) => a > b);
      rank(worst, candidate, (a, b) => a < b);
    },
  };
}

function partsIn({ provenance }: DatasetRow): ShownRow["parts"] {
  const score = (provenance?.score ?? {}) as Record<string, unknown>;
  const found: ShownRow["parts"] = {};
  for (const part of PARTS) {
    const value = score[part];
    if (typeof value === "number" && Number.isFinite(value)) found[part] = value;
  }
  return found;
}

const nameIn = (names: ReadonlyMap<string, unknown>, given: string): string => {
  const name = begin(given, NAME_CHARACTERS);
  return names.has(name) || names.size < NAMES ? name : OTHERS;
};

function count(counts: Map<string, number>, given: string): void {
  const name = nameIn(counts, given);
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

function reject(reasons: Map<string, Rejected>, given: string, reward: number | undefined, detail: unknown): void {
  const name = nameIn(reasons, given);
  const found = reasons.get(name) ?? { count: 0, rewards: [], detail: null };
  found.count++;
  if (reward !== undefined) found.rewards.push(reward);
  if (typeof detail === "string") found.detail ??= begin(detail, NAME_CHARACTERS);
  reasons.set(name, found);
}

/** In `ranked` stand the foremost so far, in order; of equal ones the earlier row first. */
function rank(ranked: Candidate[], candidate: Candidate, before: (a: number, b: number) => boolean): void {
  const place = ranked.findIndex(({ parts }) => before(candidate.parts.reward, parts.reward));
  if (place === -1 && ranked.length === SHOWN_ROWS) return;
  ranked.splice(place === -1 ? ranked.length : place, 0, candidate);
  ranked.splice(SHOWN_ROWS);
}

function shownRow({ row, number, parts }: Candidate): ShownRow {
  const { id, question, solution, reasoning_trace: trace, provenance } = row;
  const tokens = (provenance?.tokens ?? {}) as Record<string, unknown>;
  return {
    number,
    id: id ?? null,
    question: begin(question, SHOWN_CHARACTERS),
    explanation: trace === undefined ? null : paint(trace, tokens.thought),
    solution: paint(solution, tokens.solution, { padded: true }),
    parts,
    reason: typeof provenance?.reason === "string" ? begin(provenance.reason, NAME_CHARACTERS) : null,
  };
}
