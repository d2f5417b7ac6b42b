import { appendFile, mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type JournalRecord, openJournal, readJournal } from "../../src/jobs/journal.ts";

interface Row extends JournalRecord {
  text: string;
}

let folder: string;
beforeEach(async () => {
  folder = path.join(await mkdtemp(path.join(os.tmpdir(), "journal-")), "djob_1");
});
afterEach(() => rm(path.dirname(folder), { recursive: true, force: true }));

async function all(): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const row of readJournal<Row>(folder)) rows.push(row);
  return rows;
}

describe("journal of finished rows", () => {
  it("gives back what was appended, by row, in this life and the next", async () => {
    const first = await openJournal<Row>(folder, 1);
    await Promise.all([3, 0, 7].map((row) => first.append({ row, text: `ä${row}`.repeat(row + 1) })));
    expect(await first.get(7)).toEqual({ row: 7, text: "ä7".repeat(8) });
    expect(first.count).toBe(3);
    await first.close();

    const second = await openJournal<Row>(folder, 2);
    await second.append({ row: 1, text: "later" });
    expect([0, 1, 2, 3, 7].map((row) => second.has(row))).toEqual([true, true, false, true, true]);
    expect(await second.get(3)).toEqual({ row: 3, text: "ä3".repeat(4) });
    expect(await second.get(1)).toEqual({ row: 1, text: "later" });
    expect(await second.get(2)).toBeUndefined();
    await second.close();
  });

  it("passes over a line that a kill cut off", async () => {
    const first = await openJournal<Row>(folder, 1);
    await first.append({ row: 0, text: "whole" });
    await first.close();
    await appendFile(path.join(folder, "1.jsonl"), '{"row":1,"te');
    const second = await openJournal<Row>(folder, 2);
    expect(second.count).toBe(1);
    await second.append({ row: 1, text: "again" });
    await second.close();
    expect(await all()).toEqual([
      { row: 0, text: "whole" },
      { row: 1, text: "again" },
    ]);
  });

  it("keeps the record of the earlier lease where two have finished a row", async () => {
    const cutOff = await openJournal<Row>(folder, 9);
    const holder = await openJournal<Row>(folder, 10);
    await holder.append({ row: 5, text: "of 10" });
    await cutOff.append({ row: 5, text: "of 9" });
    await cutOff.close();
    await holder.close();
    expect(await all()).toEqual([{ row: 5, text: "of 9" }]);
  });

  it("writes a row once, however often it is appended", async () => {
    const journal = await openJournal<Row>(folder, 1);
    await journal.append({ row: 2, text: "first" });
    await journal.append({ row: 2, text: "second" });
    expect(await journal.get(2)).toEqual({ row: 2, text: "first" });
    await journal.close();
    expect(await all()).toEqual([{ row: 2, text: "first" }]);
  });

  it("reads records longer than a piece of the file, and many", async () => {
    const journal = await openJournal<Row>(folder, 1);
    const texts = Array.from({ length: 300 }, (_, row) => String(row).repeat(row === 150 ? 1_500_000 : 2_000));
    await Promise.all(texts.map((text, row) => journal.append({ row, text })));
    await journal.close();
    const again = await openJournal<Row>(folder, 2);
    for (const row of [0, 149, 150, 151, 299]) expect((await again.get(row))?.text).toBe(texts[row]);
    await again.close();
  });

  it("is empty for those who look before it was begun", async () => {
    expect(await all()).toEqual([]);
  });
});
