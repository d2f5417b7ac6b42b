import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parquetReadObjects } from "hyparquet";
import { afterAll, expect, test } from "vitest";
import { readParquet } from "../../../src/datasets/parquet/read.ts";
import { writeParquet } from "../../../src/datasets/parquet/write.ts";
import type { DatasetRow, RawRow } from "../../../src/datasets/row.ts";

const directory = mkdtempSync(join(tmpdir(), "preceptor-parquet-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}
async function written(rows: readonly DatasetRow[], name = "rows.parquet"): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of writeParquet(each(rows))) pieces.push(piece);
  const path = join(directory, name);
  writeFileSync(path, Buffer.concat(pieces));
  return path;
}
async function read(path: string, options: Partial<Parameters<typeof readParquet>[1]> = {}): Promise<RawRow[]> {
  const rows: RawRow[] = [];
  for await (const row of readParquet(path, { maxBytes: 2 ** 30, ...options })) rows.push(row);
  return rows;
}
const rows: DatasetRow[] = Array.from({ length: 12_000 }, (_, i) => ({
  question: `q${i}`,
  solution: `${i}`,
  ...(i % 2 ? { metadata: { n: i } } : {}),
}));

test("what is written is what another reader sees, in groups of rows", async () => {
  const bytes = readFileSync(await written(rows));
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
  const seen = await parquetReadObjects({ file });
  expect(seen).toHaveLength(12_000);
  expect(seen[10_001]).toEqual({
    id: null,
    question: "q10001",
    solution: "10001",
    reasoning_trace: null,
    provenance: null,
    metadata: '{"n":10001}',
  });
});

test("rows that repeat themselves without end are cut off where they pass the limit", async () => {
  const path = await written(
    Array.from({ length: 5_000 }, () => ({ question: "same ".repeat(200), solution: "s" })),
    "same",
  );
  expect(readFileSync(path).length).toBeLessThan(100_000);
  await expect(read(path, { maxBytes: 1_000_000 })).rejects.toMatchObject({ code: "payload_too_large" });
});

test("a file that exhausts memory or time ends its own process, and is refused", async () => {
  const path = await written(rows);
  await expect(read(path, { heapMb: 6 })).rejects.toMatchObject({
    code: "invalid_dataset",
    message: expect.stringContaining("needs more than 6 MB of memory"),
  });
  await expect(read(path, { silenceMs: 1 })).rejects.toMatchObject({
    code: "invalid_dataset",
    message: expect.stringContaining("no row could be read"),
  });
  await expect(read(path, { signal: AbortSignal.abort(new Error("gone")) })).rejects.toThrow("gone");
});

test("broken files of every kind are refused in words", async () => {
  const whole = readFileSync(join(import.meta.dirname, "fixtures/table-zstd.parquet"));
  const footer = whole.readUInt32LE(whole.length - 8);
  const changes: ((bytes: Buffer) => Buffer)[] = [
    (bytes) => bytes.subarray(0, 4),
    (bytes) => {
      bytes.writeUInt32LE(0xffffffff, bytes.length - 8);
      return bytes;
    },
    (bytes) => {
      bytes.writeUInt32LE(3, bytes.length - 8);
      return bytes;
    },
    (bytes) => bytes.fill(0xff, bytes.length - 8 - footer, bytes.length - 8),
    (bytes) => bytes.fill(0x7f, 4, 400),
    (bytes) => {
      bytes.write("PARE", bytes.length - 4);
      return bytes;
    },
  ];
  for (const [i, change] of changes.entries()) {
    const path = join(directory, `broken-${i}`);
    writeFileSync(path, change(Buffer.from(whole)));
    await expect(read(path), String(i)).rejects.toMatchObject({ code: "invalid_dataset" });
  }
});
