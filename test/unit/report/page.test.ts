import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { DatasetRecord } from "../../../src/db/dataset-store.ts";
import { fail } from "../../../src/errors.ts";
import type { EvaluationSummary, PairedDifference } from "../../../src/evaluate/summary.ts";
import { collectCurves } from "../../../src/report/collect-curves.ts";
import { curveFigure, thinned } from "../../../src/report/curve-svg.ts";
import { renderDatasetReport } from "../../../src/report/dataset-page.ts";
import { evaluationSection } from "../../../src/report/evaluation.ts";
import { gather } from "../../../src/report/figures.ts";
import { POLICY } from "../../../src/report/style.ts";

const HOSTILE = `</style></pre><script>alert(1)</script>"'>&`;

const head: DatasetRecord = {
  id: "ds_1",
  name: HOSTILE,
  contentHash: "ab".repeat(32),
  indexHash: "",
  rows: 3,
  bytes: 100,
  columns: ["question", "solution"],
  duplicates: 0,
  source: { type: "job", job: HOSTILE, part: HOSTILE, filename: HOSTILE, teacher: HOSTILE },
  metadata: {},
  createdAt: new Date(0),
  deletedAt: null,
};
const made = { at: new Date(0), version: "1.2.3" };

describe("the page", () => {
  test("loads and runs nothing, whatever stands in its rows", async () => {
    const { add, finish } = gather();
    const score = { reward: -1, "solution.logprob_mean": -0.5 };
    const tokens = { thought: { ends: [4, 9], logprobs: [-1, -3] } };
    const provenance = { score, tokens, reason: HOSTILE, detail: HOSTILE, violations: [HOSTILE] };
    const texts = { id: HOSTILE, question: HOSTILE, solution: HOSTILE, reasoning_trace: HOSTILE };
    for (let i = 0; i < 12; i++) add({ ...texts, provenance: { ...provenance, score: { reward: i } } }, i);
    const page = await renderDatasetReport({ head, figures: { ...finish(), of: 12 }, rejected: null, made });
    expect(page).not.toMatch(/<script|<img|<iframe|style="|\son\w+="|href="(?!data:,)|src=|url\(|@import/i);
    expect(page.match(/<\/style>/g)).toHaveLength(1);
    expect(page.match(/<details/g)).toHaveLength(12);
    expect(page).toContain("&lt;script&gt;alert(1)&lt;/script&gt;");
  });

  test("its policy lets the one style sheet through, and nothing else", async () => {
    const page = await renderDatasetReport({ head, figures: { ...gather().finish(), of: 0 }, rejected: null, made });
    const style = /<style>([\s\S]*)<\/style>/.exec(page)![1]!;
    expect(POLICY).toContain(`style-src 'sha256-${createHash("sha256").update(style).digest("base64")}'`);
    expect(POLICY).toMatch(/^default-src 'none'/);
    expect(page).toContain(`content="${POLICY.replaceAll("'", "&#39;")}"`);
  });

  test("says that it is a sample", async () => {
    const page = await renderDatasetReport({
      head,
      figures: { ...gather().finish(), rows: 5, of: 1_000 },
      rejected: null,
      made,
    });
    expect(page).toContain("A sample: 5 of 1,000 rows");
  });
});

describe("curves", () => {
  const points = (count: number) => Array.from({ length: count }, (_, i) => ({ step: i, value: Math.sin(i) }));

  test("a long one keeps its extremes", () => {
    const all = points(10_000);
    all[5_003] = { step: 5_003, value: 17 };
    const found = thinned(all);
    expect(found.length).toBeLessThanOrEqual(300);
    expect(found).toContainEqual({ step: 5_003, value: 17 });
    expect(found.map(({ step }) => step)).toEqual(found.map(({ step }) => step).sort((a, b) => a - b));
  });

  test("is broken where there was no number", async () => {
    const line = [...points(3), { step: 3, value: null }, { step: 4, value: 1 }];
    const svg = String(await curveFigure({ title: "loss", unit: "step", lines: [{ name: "loss", points: line }] }));
    expect(svg.match(/<path/g)).toHaveLength(2);
    expect(svg).not.toMatch(/NaN|Infinity|null/);
    expect(
      curveFigure({ title: "loss", unit: "step", lines: [{ name: "a", points: [{ step: 1, value: null }] }] }),
    ).toBe("");
  });

  test("the same metric of several trainings is one chart; too many points are asked for more thinly", async () => {
    const asked: number[] = [];
    const metrics = async (_: string, { every = 1 } = {}) => {
      asked.push(every);
      if (every < 100) throw fail("invalid_value", "more than 100000 points", { param: "every" });
      const names = ["distilled/loss", "distilled/step_time", "reward", "solutions/loss", "grad/x"];
      return Object.fromEntries(names.map((name) => [name, points(3)]));
    };
    const curves = await collectCurves({ metrics }, "djob_1");
    expect(asked).toEqual([1, 10, 100]);
    expect(curves.map(({ title, lines }) => [title, lines.map(({ name }) => name)])).toEqual([
      ["reward", ["reward"]],
      ["loss", ["distilled", "solutions"]],
      ["x", ["grad"]],
    ]);
  });
});

describe("the evaluation", () => {
  const summary = (accuracy: number): EvaluationSummary => ({
    accuracy,
    interval: { low: accuracy - 0.1, high: accuracy + 0.1, level: 0.95, method: "wilson" },
    pass_at_k: { 1: accuracy },
    answered: 1,
    in_format: 1,
    truncated: 0,
    mean_completion_tokens: 12,
    counts: { rows: 100, samples: 100, correct: accuracy * 100, errors: {}, completion_tokens: 1_200 },
  });
  const difference = (by: number): PairedDifference => ({
    difference: by,
    interval: { low: by - 0.08, high: by + 0.07, level: 0.95, method: "newcombe_paired" },
    mcnemar_p: 0.012,
    improved: 20,
    worsened: 4,
    rows: 100,
  });

  test("shows the interval and both controls", async () => {
    const solutions = { evaluation: summary(0.35), uplift: difference(0.05), behind: difference(0.11) };
    const page = String(
      await evaluationSection({
        before: summary(0.3),
        after: summary(0.46),
        uplift: difference(0.16),
        controls: { solutions, reasoning_trace: { evaluation: summary(0.41) } },
        asked: ["solutions", "reasoning_trace"],
      }),
    );
    expect(page).toContain("On 100 rows accuracy went from 30.0 % to 46.0 %: <b>+16.0 points</b>");
    expect(page).toContain("95 % interval +8.0 to +23.0; McNemar p 0.012");
    expect(page).toContain("Zero lies outside the interval");
    for (const told of ["36.0 % to 56.0 %", "25.0 % to 45.0 %", "31.0 % to 51.0 %", "+3.0 to +18.0"])
      expect(page).toContain(told);
    expect(page).not.toContain("not asked for");
  });

  test("a job that runs tells what is measured so far and what is missing", async () => {
    const page = String(await evaluationSection({ before: summary(0.3), controls: {}, asked: ["solutions"] }));
    expect(page).toContain("not done");
    expect(page).toContain("solutions alone: not measured yet");
    expect(page).toMatch(/own traces: not asked for/);
    expect(evaluationSection({ controls: {}, asked: [] })).toBe("");
  });
});
