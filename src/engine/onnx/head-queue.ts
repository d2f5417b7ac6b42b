import { fail } from "../../errors.ts";
import { createFairQueue, type Waiting } from "../fair-queue.ts";
import { headRows } from "./limits.ts";
import type { ReadOptions } from "./scorer.ts";
import type { HeadInputs, HeadOutput, HeadResult, Sessions } from "./sessions.ts";

/** Hidden rows that wait for the head. Rows of several texts that ask for the same go through it together. */
export interface HeadQueue {
  run<F extends HeadOutput>(
    rows: Float32Array,
    inputs: HeadInputs,
    fetches: readonly F[],
    options: Pick<ReadOptions, "client" | "priority" | "signal">,
  ): Promise<HeadResult<F>>;
  /** One run of the head; false when nothing waits. */
  step(): boolean;
  pending(): number;
}

interface Piece extends Waiting {
  rows: Float32Array;
  count: number;
  inputs: HeadInputs;
  fetches: readonly HeadOutput[];
  signal: AbortSignal;
  resolve: (result: HeadResult<HeadOutput>) => void;
  reject: (error: unknown) => void;
}

export function createHeadQueue({ sessions, wake }: { sessions: Sessions; wake: () => void }): HeadQueue {
  const { hiddenSize, vocabSize } = sessions.config;
  const limit = headRows(vocabSize);
  const queue = createFairQueue<Piece>();

  /** The first in line and others that ask for the same, up to a full run. */
  function next(): Piece[] {
    const [first, ...others] = queue.inOrder();
    if (!first) return [];
    const taken = [first];
    let rows = first.count;
    for (const piece of others) {
      if (rows + piece.count > limit || !alike(first, piece)) continue;
      taken.push(piece);
      rows += piece.count;
    }
    for (const piece of taken) queue.remove(piece, piece === first);
    return taken;
  }

  return {
    run(rows, inputs, fetches, { client, priority, signal }) {
      return new Promise((resolve, reject) => {
        const count = rows.length / hiddenSize;
        const done = resolve as Piece["resolve"];
        queue.push({ rows, count, inputs, fetches, client, priority, signal, resolve: done, reject });
        wake();
      });
    },
    step() {
      const pieces = next().filter((piece) => {
        if (piece.signal.aborted) piece.reject(cancelled());
        return !piece.signal.aborted;
      });
      if (pieces.length === 0) return false;
      try {
        const [first] = pieces as [Piece];
        const together = pieces.length === 1 ? first : merged(pieces);
        const result = sessions.head(together.rows, together.inputs, first.fetches);
        let start = 0;
        for (const piece of pieces) {
          piece.resolve(part(result, start, piece.count, together.rows.length / hiddenSize));
          start += piece.count;
        }
      } catch (error) {
        for (const piece of pieces) piece.reject(error);
      }
      return true;
    },
    pending: () => queue.size,
  };
}

export const cancelled = (): Error => fail("cancelled", "the caller cancelled this request");

/** Whether two pieces can share a run. Ids of the caller's choice have a width of their own, references too much weight. */
function alike(a: Piece, b: Piece): boolean {
  const plain = ({ inputs }: Piece): boolean => !inputs.at && !inputs.reference;
  return plain(a) && plain(b) && a.inputs.k === b.inputs.k && a.fetches.join() === b.fetches.join();
}

function merged(pieces: readonly Piece[]): Pick<Piece, "rows" | "inputs"> {
  const { k, targets } = pieces[0]!.inputs;
  const inputs: HeadInputs = {
    inverseTemperature: joined(pieces.map(({ inputs }) => inputs.inverseTemperature)),
    ...(targets ? { targets: joined(pieces.map((piece) => piece.inputs.targets!)) } : {}),
    ...(k === undefined ? {} : { k }),
  };
  return { rows: joined(pieces.map(({ rows }) => rows)), inputs };
}

function joined<T extends Float32Array | Int32Array>(arrays: readonly T[]): T {
  const total = arrays.reduce((sum, array) => sum + array.length, 0);
  const out = new (arrays[0]!.constructor as new (length: number) => T)(total);
  let at = 0;
  for (const array of arrays) {
    out.set(array, at);
    at += array.length;
  }
  return out;
}

/** Rows start…start+count−1 of results for N rows. */
function part(result: HeadResult<HeadOutput>, start: number, count: number, N: number): HeadResult<HeadOutput> {
  if (count === N) return result;
  const entries = Object.entries(result).map(([name, values]) => {
    const width = values.length / N;
    return [name, values.slice(start * width, (start + count) * width)];
  });
  return Object.fromEntries(entries) as HeadResult<HeadOutput>;
}
