/** Every candidate is looked at; if one of them is bad none is kept, and the first bad ones are named by line. */
import { createHash } from "node:crypto";
import type { StagedFolder } from "../artifacts/store.ts";
import { type BadLine, fail } from "../errors.ts";
import { createHashTable, type HashTable } from "./hash-table.ts";
import { MAX_ROWS, MAX_TOLD_LINES } from "./limits.ts";
import { normalise } from "./normalise.ts";
import type { DatasetRow, RawRow } from "./row.ts";
import { createDatasetWriter, type Written } from "./writer.ts";

export interface CollectOptions {
  /** Of the request: `file` or `rows`. */
  param: string;
  /** What a number counts: lines of a file, rows of a body. */
  unit: "line" | "row";
  signal?: AbortSignal | undefined;
  maxRows?: number;
}

/** Throws `invalid_dataset`; the folder is then to be discarded. */
export async function collectRows(
  candidates: AsyncIterable<RawRow> | Iterable<RawRow>,
  folder: StagedFolder,
  { param, unit, signal, maxRows = MAX_ROWS }: CollectOptions,
): Promise<Written> {
  const writer = await createDatasetWriter(folder);
  const ids = createHashTable();
  const bad: BadLine[] = [];
  let seen = 0;
  let faults = 0;
  for await (const candidate of candidates) {
    signal?.throwIfAborted();
    if (++seen > maxRows) {
      throw fail("invalid_dataset", `it has more than ${maxRows} rows; split it into several datasets`, { param });
    }
    const row = "fault" in candidate ? candidate.fault : normalise(candidate.value);
    const fault = typeof row === "string" ? row : takenId(ids, row);
    if (fault !== undefined) {
      faults++;
      if (bad.length < MAX_TOLD_LINES) bad.push({ line: candidate.line, reason: fault });
    } else if (typeof row !== "string" && faults === 0) await writer.add(row);
  }
  if (faults > 0) throw badLines(bad, { faults, seen, param, unit });
  if (seen === 0) throw fail("invalid_dataset", "it has no rows", { param });
  return writer.finish();
}

/** Ids as hashes: they may be long, and there may be millions. */
function takenId(ids: HashTable, { id, provenance }: DatasetRow): string | undefined {
  if (id === undefined) return undefined;
  // Several explanations of one question bear its id; where a job drew or read them, it says which is which.
  const { row, sample } = provenance ?? {};
  const whole = row === undefined && sample === undefined ? id : `${id}\n${JSON.stringify([row, sample])}`;
  const earlier = ids.add(createHash("sha256").update(whole, "utf16le").digest(), 0);
  return earlier === undefined
    ? undefined
    : `the id ${JSON.stringify(id.slice(0, 60))} stands in an earlier row already`;
}

function badLines(
  bad: readonly BadLine[],
  { faults, seen, param, unit }: { faults: number; seen: number; param: string; unit: string },
): Error {
  const more = faults > bad.length ? `\n… and ${faults - bad.length} more` : "";
  const list = bad.map(({ line, reason }) => `${unit} ${line}: ${reason}`).join("\n");
  return fail("invalid_dataset", `${faults} of ${seen} rows cannot be used, so nothing was kept.\n${list}${more}`, {
    param,
    lines: bad,
  });
}
