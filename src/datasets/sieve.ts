/** Decides row by row what a derived dataset keeps; every row that is dropped gets its reason. */
import { createHash } from "node:crypto";
import { setImmediate as breathe } from "node:timers/promises";
import type { Dataset } from "./dataset.ts";
import { createHashTable } from "./hash-table.ts";
import { createNearDuplicates } from "./minhash.ts";
import { createNgramIndex } from "./ngrams.ts";
import type { DatasetRow } from "./row.ts";
import { type Condition, hasMetadata } from "./search.ts";

/** `question`: rows are the same when their questions are. `row`: when question, reasoning and solution are. */
export type Compared = "question" | "row";

export interface SieveSettings {
  filter?: Filter | undefined;
  dedupe?: Dedupe | undefined;
  decontaminate?: Decontaminate | undefined;
}

/** What a row must have to stay. */
export interface Filter {
  metadata?: readonly Condition[] | undefined;
  reasoning_trace?: boolean | undefined;
  /** Of question, reasoning and solution together. */
  max_characters?: number | undefined;
}

export interface Dedupe {
  exact: boolean;
  /** Likeness from which two texts are the same; see minhash.ts. */
  near?: number | undefined;
  compare: Compared;
}

export interface Decontaminate {
  against: readonly Dataset[];
  /** Words of a run that must not be shared; null: runs are not compared. */
  ngram: number | null;
  /** Likeness of questions that is too much; null: likeness is not compared. */
  near: number | null;
  /** Where runs are looked for: in the question, or in the whole row. */
  compare: Compared;
}

/** `row` counts from 0 in the dataset that is sifted or, with `dataset`, in that one. */
export type Dropped =
  | { reason: "filter" }
  | { reason: "ngram_overlap"; dataset: string; row: number; words: string }
  | { reason: "near_contamination"; dataset: string; row: number; similarity: number }
  | { reason: "exact_duplicate"; row: number }
  | { reason: "near_duplicate"; row: number; similarity: number };

/** To be asked once for every row, in order. */
export type Sieve = (row: DatasetRow, number: number) => Dropped | undefined;

/**
 * First what a row is by itself, then what it must not be near to, then the rows before it: so that what a row is a duplicate of
 * has always been kept.
 */
export async function createSieve(settings: SieveSettings, signal?: AbortSignal): Promise<Sieve> {
  const sieves: Sieve[] = [];
  if (settings.filter) sieves.push(filtering(settings.filter));
  if (settings.decontaminate) sieves.push(await decontaminating(settings.decontaminate, signal));
  if (settings.dedupe?.exact) sieves.push(withoutCopies(settings.dedupe.compare));
  if (settings.dedupe?.near !== undefined) sieves.push(withoutNear(settings.dedupe.near, settings.dedupe.compare));
  return (row, number) => {
    for (const sieve of sieves) {
      const dropped = sieve(row, number);
      if (dropped) return dropped;
    }
    return undefined;
  };
}

function textOf({ question, solution, reasoning_trace }: DatasetRow, compared: Compared): string {
  return compared === "question" ? question : `${question}\n${reasoning_trace ?? ""}\n${solution}`;
}

function filtering({ metadata, reasoning_trace: reasoned, max_characters: most }: Filter): Sieve {
  return (row) => {
    const length = row.question.length + row.solution.length + (row.reasoning_trace?.length ?? 0);
    const stays =
      (metadata === undefined || hasMetadata(row, metadata)) &&
      (reasoned === undefined || reasoned === (row.reasoning_trace !== undefined)) &&
      (most === undefined || length <= most);
    return stays ? undefined : { reason: "filter" };
  };
}

function withoutCopies(compared: Compared): Sieve {
  const seen = createHashTable();
  return (row, number) => {
    const earlier = seen.add(createHash("sha256").update(textOf(row, compared)).digest(), number);
    return earlier === undefined ? undefined : { reason: "exact_duplicate", row: earlier };
  };
}

function withoutNear(threshold: number, compared: Compared): Sieve {
  const near = createNearDuplicates({ threshold });
  /** Rows in the order in which they were compared. */
  const compare: number[] = [];
  return (row, number) => {
    compare.push(number);
    const found = near.take(textOf(row, compared));
    return found && { reason: "near_duplicate", row: compare[found.index]!, similarity: rounded(found.similarity) };
  };
}

async function decontaminating({ against, ngram, near, compare }: Decontaminate, signal?: AbortSignal): Promise<Sieve> {
  const runs = ngram === null ? undefined : createNgramIndex(ngram);
  const alike = near === null ? undefined : createNearDuplicates({ threshold: near });
  /** Where each dataset begins among all their rows. */
  const starts: number[] = [];
  let owner = 0;
  for (const dataset of against) {
    starts.push(owner);
    for await (const { question } of pacing(dataset.rows(), signal)) {
      runs?.add(question, owner);
      alike?.store(question);
      owner++;
    }
  }
  const locate = (place: number): { dataset: string; row: number } => {
    const i = starts.findLastIndex((start) => start <= place);
    return { dataset: against[i]!.id, row: place - starts[i]! };
  };
  return (row) => {
    // By itself too: a question that is shorter than a run is found as a whole.
    const shared = runs?.find(row.question) ?? runs?.find(textOf(row, compare));
    if (shared) return { reason: "ngram_overlap", ...locate(shared.owner), words: shared.words };
    const found = alike?.find(row.question);
    return found && { reason: "near_contamination", ...locate(found.index), similarity: rounded(found.similarity) };
  };
}

const rounded = (similarity: number): number => Math.round(similarity * 1_000) / 1_000;

/** Comparing keeps the thread busy; requests of others get their turn this often. */
const BUSY_MS = 20;

/** The same items, with a breath for everybody else from time to time. */
export async function* pacing<T>(items: AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T> {
  let since = performance.now();
  for await (const item of items) {
    yield item;
    if (performance.now() - since < BUSY_MS) continue;
    signal?.throwIfAborted();
    await breathe();
    since = performance.now();
  }
}
