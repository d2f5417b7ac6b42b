/** Rows → the rows that stay and those that do not, each as files of a dataset. */
import type { StagedFolder } from "../artifacts/store.ts";
import { fail } from "../errors.ts";
import { hashQuestion } from "./index-file.ts";
import { readJsonl } from "./jsonl.ts";
import type { DatasetRow } from "./row.ts";
import { type Dropped, pacing, type Sieve } from "./sieve.ts";
import { splitByQuestion } from "./split.ts";
import { createDatasetWriter, ROWS_FILE, type Written } from "./writer.ts";

/** A folder and what was written into it. */
export interface Part {
  folder: StagedFolder;
  written: Written;
}

export interface Sifted {
  kept: Part;
  /** undefined: every row stayed. */
  dropped: Part | undefined;
  reasons: Partial<Record<Dropped["reason"], number>>;
}

/** Key in the metadata of a row that was dropped, under which the reason stands; a key of that name gives way. */
export const DROPPED_KEY = "preceptor_dropped";

/** `stage` gives folders, which the caller discards. Throws `invalid_dataset` when no row stays. */
export async function sift(
  rows: AsyncIterable<DatasetRow>,
  sieve: Sieve,
  stage: () => Promise<StagedFolder>,
  signal?: AbortSignal,
): Promise<Sifted> {
  const [keptFolder, droppedFolder] = [await stage(), await stage()];
  const kept = await createDatasetWriter(keptFolder);
  const dropped = await createDatasetWriter(droppedFolder);
  const reasons: Sifted["reasons"] = {};
  let number = 0;
  for await (const row of pacing(rows, signal)) {
    const why = sieve(row, number);
    if (why === undefined) await kept.add(row);
    else {
      reasons[why.reason] = (reasons[why.reason] ?? 0) + 1;
      await dropped.add({ ...row, metadata: { ...row.metadata, [DROPPED_KEY]: { row: number, ...named(why) } } });
    }
    number++;
  }
  const [keptFiles, droppedFiles] = [await kept.finish(), await dropped.finish()];
  if (keptFiles.rows === 0) {
    const told = Object.entries(reasons).map(([reason, count]) => `${reason} ${count}`);
    throw fail("invalid_dataset", `none of the ${number} rows would be left (${told.join(", ")}); ask for less`);
  }
  return {
    kept: { folder: keptFolder, written: keptFiles },
    dropped: droppedFiles.rows === 0 ? undefined : { folder: droppedFolder, written: droppedFiles },
    reasons,
  };
}

/** `row` is the dropped row itself; what it was compared with is `of_row`. */
function named({ reason, ...why }: Dropped): object {
  if (!("row" in why)) return { reason };
  const { row, ...rest } = why;
  return { reason, of_row: row, ...rest };
}

/** Both sides of a seeded split; see split.ts. Throws `invalid_dataset` where one side would be empty. */
export async function splitPart(
  { folder }: Part,
  { heldOut, seed }: { heldOut: number; seed: number },
  stage: () => Promise<StagedFolder>,
  signal?: AbortSignal,
): Promise<{ train: Part; heldOut: Part }> {
  const hashes: Buffer[] = [];
  for await (const row of rowsOf(folder)) hashes.push(hashQuestion(row.question));
  const split = splitByQuestion(hashes, heldOut, seed);
  if (split.train.length === 0 || split.heldOut.length === 0) {
    throw fail("invalid_dataset", "all rows have the same question, so there is nothing to hold out", {
      param: "split",
    });
  }
  const held = new Set(split.heldOut);
  const [trainFolder, heldFolder] = [await stage(), await stage()];
  const [train, heldOutWriter] = [await createDatasetWriter(trainFolder), await createDatasetWriter(heldFolder)];
  let number = 0;
  for await (const row of pacing(rowsOf(folder), signal)) await (held.has(number++) ? heldOutWriter : train).add(row);
  return {
    train: { folder: trainFolder, written: await train.finish() },
    heldOut: { folder: heldFolder, written: await heldOutWriter.finish() },
  };
}

/** Rows that were just written; they were checked before. */
export async function* rowsOf(folder: StagedFolder): AsyncGenerator<DatasetRow> {
  for await (const row of readJsonl(folder.stream(ROWS_FILE), Number.POSITIVE_INFINITY)) {
    if ("value" in row) yield row.value as DatasetRow;
  }
}
