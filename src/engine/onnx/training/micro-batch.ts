/** How the sequences of one call are cut into runs of the training graph. */
import type { TrainingSequence } from "../../engine.ts";

/** Sequences that are computed together, after the tokens they all begin with. */
export interface MicroBatch {
  /** Indices into the call's sequences. */
  members: number[];
  /** Tokens computed once for all of them; 0: nothing is shared. */
  shared: number;
  /** Tokens per sequence behind them, padding included. */
  length: number;
}

export interface BatchShape {
  /** Tokens that are computed. */
  rows: number;
  /** Pairs of positions that look at each other. */
  pairs: number;
}

export interface BatchLimits {
  fits(shape: BatchShape): boolean;
  /** Whether a batch of this shape has to compute its layers twice. */
  recompute(shape: BatchShape): boolean;
}

export function shapeOf({ members, shared, length }: MicroBatch): BatchShape {
  return {
    rows: shared + members.length * length,
    pairs: shared ** 2 + members.length * length * (shared + length),
  };
}

/** A shorter beginning is not worth a form of its own. */
const LEAST_SHARED = 16;
/** Lengths are rounded up to a multiple, so that fewer shapes are seen. */
const LENGTH_STEP = 8;

/** Forward twice and backward, which is two forwards, instead of once and backward. */
const RECOMPUTED = 4 / 3;
/** What a run costs beside its rows, in rows: measured as 0.1 s where a row takes 2.7 ms. */
const RUN_ROWS = 40;

/** Sequences that share nothing gain nothing from more company: 2,048 rows are no faster than 1,024, and take twice the memory. */
const ROWS_APART = 1024;

/**
 * Families with a common beginning first (the samples of a group), each in the cheaper of two cuts: as few runs as fit, or
 * more of them so small that nothing has to be computed twice. Inside a family, and among the rest, sequences go by length,
 * so that little is padded. What is computed for a sequence does not depend on its company.
 */
export function microBatches(sequences: readonly TrainingSequence[], limits: BatchLimits): MicroBatch[] {
  const cost = (batches: readonly MicroBatch[]): number =>
    batches
      .map(shapeOf)
      .reduce((sum, shape) => sum + RUN_ROWS + shape.rows * (limits.recompute(shape) ? RECOMPUTED : 1), 0);
  return families(sequences).flatMap((family) => {
    const few = cut(sequences, family, (shape) => limits.fits(shape));
    const small = cut(sequences, family, (shape) => limits.fits(shape) && !limits.recompute(shape));
    return cost(small) < cost(few) ? small : few;
  });
}

function cut(
  sequences: readonly TrainingSequence[],
  { members, shared }: Family,
  fits: (shape: BatchShape) => boolean,
): MicroBatch[] {
  const lengthOf = (index: number): number => sequences[index]!.ids.length - shared;
  const ordered = [...members].sort((a, b) => lengthOf(b) - lengthOf(a) || a - b);
  const batches: MicroBatch[] = [];
  for (const index of ordered) {
    const last = batches.at(-1);
    const grown = last && { ...last, members: [...last.members, index] };
    const shape = grown && shapeOf(grown);
    if (shape && (shared > 0 || shape.rows <= ROWS_APART) && fits(shape)) batches[batches.length - 1] = grown;
    else batches.push({ members: [index], shared, length: roundUp(lengthOf(index)) });
  }
  return batches;
}

interface Family {
  members: number[];
  shared: number;
}

const roundUp = (length: number): number => Math.ceil(length / LENGTH_STEP) * LENGTH_STEP;

/**
 * In the order of their ids, sequences with the same beginning are neighbours. A family ends where a neighbour shares much
 * less than the others around it do: samples of one question, not all questions behind one system prompt.
 */
function families(sequences: readonly TrainingSequence[]): Family[] {
  const order = sequences
    .map((_, index) => index)
    .sort((a, b) => compare(sequences[a]!.ids, sequences[b]!.ids) || a - b);
  const common = order.slice(1).map((index, k) => commonLength(sequences[order[k]!]!.ids, sequences[index]!.ids));
  const found: Family[] = [];
  const apart: number[] = [];
  let family: number[] = [];
  let shared = Infinity;
  for (const [k, index] of order.entries()) {
    family.push(index);
    const next = common[k] ?? 0;
    if (next >= LEAST_SHARED && next >= MUCH * Math.max(common[k - 1] ?? 0, common[k + 1] ?? 0)) {
      shared = Math.min(shared, next);
      continue;
    }
    if (family.length > 1) found.push({ members: family, shared });
    else apart.push(index);
    family = [];
    shared = Infinity;
  }
  if (apart.length > 0) found.push({ members: apart, shared: 0 });
  return found;
}

/** Of what a neighbour shares with its other neighbour. */
const MUCH = 0.75;

function compare(a: Int32Array, b: Int32Array): number {
  const at = firstDifference(a, b);
  return (a[at] ?? -1) - (b[at] ?? -1);
}

/** Tokens that both begin with; each keeps one of its own at least. */
function commonLength(a: Int32Array, b: Int32Array): number {
  return Math.min(firstDifference(a, b), a.length - 1, b.length - 1);
}

function firstDifference(a: Int32Array, b: Int32Array): number {
  let at = 0;
  while (at < a.length && at < b.length && a[at] === b[at]) at++;
  return at;
}
