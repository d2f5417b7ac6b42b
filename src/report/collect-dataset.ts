/** A dataset read once for its report; of a large one evenly spaced stretches, so that no report holds the server up. */
import type { Dataset } from "../datasets/dataset.ts";
import { gather, type RowFigures } from "./figures.ts";

/** Figures hold a number a row and part: 100,000 rows are some ten megabytes, and no percentile is off by more than a third of a per cent. */
export const MAX_ROWS_READ = 100_000;
/** Read and parsed in two or three seconds of one core, with pauses for others. */
export const MAX_BYTES_READ = 256 * 2 ** 20;
/** Read together: fewer would cost a look into the index each, more would be less even. */
const STRETCH_ROWS = 200;

export interface DatasetFigures extends RowFigures {
  /** Rows of the dataset. */
  of: number;
}

/** `bytes`: of all rows. */
export async function collectDataset(
  dataset: Pick<Dataset, "count" | "rows">,
  bytes: number,
  signal: AbortSignal,
  maxRows = MAX_ROWS_READ,
): Promise<DatasetFigures> {
  const { add, finish } = gather();
  for (const [from, to] of stretches(dataset.count, bytes, maxRows)) {
    let number = from;
    for await (const row of dataset.rows(from, to)) {
      signal.throwIfAborted();
      add(row, number++);
    }
  }
  return { ...finish(), of: dataset.count };
}

/** Stretches [from, to) in order, as many rows altogether as may be read. */
function* stretches(count: number, bytes: number, maxRows: number): Generator<[number, number]> {
  const fitting = Math.floor(MAX_BYTES_READ / (bytes / Math.max(1, count) || 1));
  const most = Math.max(STRETCH_ROWS, Math.min(maxRows, fitting));
  if (count <= most) return yield [0, count];
  const pieces = Math.floor(most / STRETCH_ROWS);
  for (let i = 0; i < pieces; i++) {
    const from = Math.floor((i * count) / pieces);
    yield [from, from + STRETCH_ROWS];
  }
}
