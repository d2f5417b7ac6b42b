import { describe, expect, test } from "vitest";
import type { DatasetRow } from "../../../src/datasets/row.ts";
import { collectDataset } from "../../../src/report/collect-dataset.ts";
import { gather } from "../../../src/report/figures.ts";
import { histogramOf } from "../../../src/report/histogram.ts";

const row = (i: number, provenance?: Record<string, unknown>): DatasetRow => ({
  id: `q${i}`,
  question: "?".repeat(i + 1),
  solution: "!",
  ...(provenance ? { provenance } : {}),
});
const scored = (i: number, reward: unknown): DatasetRow => row(i, { score: { reward, "kl.mean": 0.5 } });

function inMemory(count: number) {
  const read: number[] = [];
  return {
    read,
    count,
    async *rows(from = 0, to = count) {
      for (let i = from; i < Math.min(to, count); i++) {
        read.push(i);
        yield scored(i, -i);
      }
    },
  };
}
const signal = new AbortController().signal;

describe("figures of rows", () => {
  test("the ten best and the ten worst, in order, equal ones in the order of their rows", () => {
    const { add, finish } = gather();
    const rewards = [5, 1, 9, 9, 3, 7, 0, 2, 8, 6, 4, -1, 9];
    for (const [i, reward] of rewards.entries()) add(scored(i, reward), i);
    const figures = finish();
    expect(figures.best.map(({ number }) => number)).toEqual([2, 3, 12, 8, 5, 9, 0, 10, 4, 7]);
    expect(figures.worst.map(({ number }) => number)).toEqual([11, 6, 1, 7, 4, 10, 0, 9, 5, 8]);
    expect(figures.parts.reward).toEqual(rewards);
    expect(figures.parts["kl.mean"]).toHaveLength(rewards.length);
  });

  test("rejections and violations are counted by name, of which there are only so many", () => {
    const { add, finish } = gather();
    add(
      row(0, { reason: "format", detail: "missing_closing_tag", violations: ["a", "a", "b"], score: { reward: -2 } }),
      0,
    );
    add(row(1, { reason: "format", violations: ["a"] }), 1);
    for (let i = 0; i < 1_000; i++) add(row(i, { reason: `made up ${i}` }), i);
    const figures = finish();
    expect(figures.reasons.get("format")).toEqual({ count: 2, rewards: [-2], detail: "missing_closing_tag" });
    expect([...figures.violations]).toEqual([
      ["a", 2],
      ["b", 1],
    ]);
    expect(figures.reasons.size).toBeLessThanOrEqual(31);
    expect([...figures.reasons.values()].reduce((sum, { count }) => sum + count, 0)).toBe(1_002);
  });

  test("provenance of any form is survived", () => {
    const { add, finish } = gather();
    const odd = [{ score: null }, { score: 3 }, { score: { reward: "high" } }, { score: { reward: Number.NaN } }];
    const lists = [{ violations: "x", reason: 4, tokens: 7 }, { violations: [{}, null] }, { tokens: { thought: [] } }];
    for (const [i, provenance] of [...odd, ...lists].entries()) add(row(i, provenance), i);
    add(
      { ...scored(9, 1), provenance: { score: { reward: 1 }, tokens: { solution: { ends: "1", logprobs: {} } } } },
      9,
    );
    const figures = finish();
    expect(figures.rows).toBe(8);
    expect(figures.best).toHaveLength(1);
  });
});

describe("a dataset is read once", () => {
  test("wholly where it is small", async () => {
    const dataset = inMemory(230);
    const figures = await collectDataset(dataset, 23_000, signal);
    expect(figures).toMatchObject({ rows: 230, of: 230 });
    expect(figures.lengths.question).toHaveLength(230);
  });

  test("evenly sampled above the limit of rows, and above that of bytes", async () => {
    for (const [bytes, limit] of [
      [1e6, 1_000],
      [10_000 * 2 ** 18, 100_000],
    ] as const) {
      const dataset = inMemory(10_000);
      const figures = await collectDataset(dataset, bytes, signal, limit);
      expect(figures).toMatchObject({ rows: 1_000, of: 10_000 });
      expect(new Set(dataset.read).size).toBe(1_000);
      for (let fifth = 0; fifth < 5; fifth++) {
        expect(dataset.read.filter((i) => Math.floor(i / 2_000) === fifth)).toHaveLength(200);
      }
    }
  });

  test("not to its end once nobody waits for it", async () => {
    const leaving = new AbortController();
    const dataset = inMemory(100);
    const rows = dataset.rows;
    const watched = {
      ...dataset,
      async *rows(from?: number, to?: number) {
        for await (const each of rows(from, to)) {
          if (dataset.read.length === 10) leaving.abort();
          yield each;
        }
      },
    };
    await expect(collectDataset(watched, 1, leaving.signal)).rejects.toThrow(/abort/i);
    expect(dataset.read).toHaveLength(10);
  });
});

describe("histograms", () => {
  test("hold every value, the outliers in the outer bins", () => {
    const values = [...Array.from({ length: 1_000 }, (_, i) => i / 1_000), 1e9];
    const { bins, count, max, median } = histogramOf(values)!;
    expect(bins.reduce((sum, bin) => sum + bin.count, 0)).toBe(1_001);
    expect({ count, max, median }).toEqual({ count: 1_001, max: 1e9, median: 0.5 });
    expect(bins.at(-1)!.to).toBeLessThan(1.1);
  });

  test("of whole numbers have bins of whole numbers; of one value one; of none nothing", () => {
    expect(histogramOf([1, 2, 2, 3])!.bins.map(({ from, count }) => [from, count])).toEqual([
      [1, 1],
      [2, 2],
      [3, 1],
    ]);
    expect(histogramOf([0.5, 0.5])!.bins).toEqual([{ from: 0.5, to: 0.5, count: 2 }]);
    expect(histogramOf([])).toBeNull();
  });
});
