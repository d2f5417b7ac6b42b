import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type DistillResult, runDistillation } from "../../src/distill/handler.ts";
import { claim, type DistillLab, distillConfig, journalOf, newRun, openDistillLab } from "./fixture.ts";
import { reportOf } from "./report-fixture.ts";

let lab: DistillLab;
beforeAll(async () => {
  lab = await openDistillLab();
});
afterAll(() => lab?.close());

/** A job that is paused when it has told a few samples. */
async function paused() {
  const run = newRun();
  const config = distillConfig();
  const wanted = () => (run.events.length >= 5 ? ("pause" as const) : null);
  const { outcome } = await runDistillation(lab.deps, claim(run, config, { wanted }));
  expect(outcome).toBe("paused");
  const { questions } = run.progress as unknown as { questions: number };
  expect(questions).toBeGreaterThan(0);
  expect(questions).toBeLessThan(40);
  return { run, config, questions };
}

describe("the report of a job", () => {
  it("tells of the rows there are while the datasets are not", async () => {
    const { run, config, questions } = await paused();
    const { report, page } = await reportOf(lab, run, config, "paused");
    expect(report.rows).toMatchObject({
      live: { questions, gone: false, accepted: { rows: questions }, rejected: { rows: questions } },
    });
    expect(page).toContain(`the first ${questions} of ${questions} finished questions`);
    expect(page).toMatch(/<code>not_chosen<\/code>/);
    expect(page).toMatch(/<span class="s\d" title="−log p /);
    expect(page).toContain("Curve: accepted by question");
    expect(page).not.toContain("Led to");
  });

  it("that is asked for just as the datasets are written tells of them", async () => {
    const { run, config } = await paused();
    const early = run.progress;
    const { result } = await runDistillation(lab.deps, claim(run, config));
    const written = run.progress;
    // Read before the end, found after it.
    let reads = 0;
    const late = { ...run };
    Object.defineProperty(late, "progress", { get: () => (reads++ === 0 ? early : written) });
    const { report, page } = await reportOf(lab, late, config, "running");
    expect(report.rows).toMatchObject({ accepted: { rows: 40, of: 40 }, rejected: { rows: 40 } });
    expect(page).toContain((result as DistillResult).output_dataset);
  });

  it("comes without rows where they are gone", async () => {
    const { run, config } = await paused();
    await rm(journalOf(lab.deps.artifacts, run.job), { recursive: true });
    const lost = await reportOf(lab, run, config, "failed");
    expect(lost.report.rows).toMatchObject({ live: { gone: true, questions: 0 } });
    expect(lost.page).toContain("not there any more");
    const done = newRun();
    await runDistillation(lab.deps, claim(done, config));
    const deleted = await reportOf({ deps: lab.deps, datasets: [] }, done, config, "succeeded");
    expect(deleted.report.rows).toEqual({ accepted: null, rejected: null });
    expect(deleted.page).toContain("not there any more");
    expect(deleted.page).toContain("40 rows from 40 of 40 questions");
    expect(deleted.page).toMatch(/<code>not_chosen<\/code><\/th><td class="number">40</);
  });
});
