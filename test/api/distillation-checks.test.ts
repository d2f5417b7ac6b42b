/** What the distillation service refuses, and how it answers when its files are gone; the rest is seen over HTTP (test/e2e). */
import os from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { hasTrace, someRow } from "../../src/api/distillation/check.ts";
import { checkRescore, type Rescore } from "../../src/api/distillation/rescore.ts";
import { createDistillationService, DISTILLATION, type DistillationDeps } from "../../src/api/distillation/service.ts";
import { distillConfig } from "../distill/fixture.ts";

const rows = [
  { question: "1 + 1", solution: "2" },
  { question: "1 + 2", solution: "3", reasoning_trace: "one more than two" },
];
const dataset = { count: rows.length, row: async (i: number) => rows[i]! };

describe("distillation, before it begins and when its files are gone", () => {
  it("says that finished rows are gone instead of looking for them for ever", async () => {
    let looked = 0;
    const deps = {
      queue: {
        async find() {
          if (++looked > 10) throw new Error("it looks for ever");
          return { id: "djob_1", kind: DISTILLATION, config: distillConfig(), progress: { questions: 3, made: {} } };
        },
      },
      opener: { openDataset: async () => dataset },
      artifacts: path.join(os.tmpdir(), "preceptor-no-such-folder"),
    } as unknown as DistillationDeps;
    // Only what the route reads of a job is there.
    const service = createDistillationService(deps);
    const asked = service.rows("djob_1", { part: "accepted", after: -1, limit: 20 });
    await expect(asked).rejects.toMatchObject({ code: "not_found", message: expect.stringMatching(/no longer/) });
  });

  it("finds a trace behind a row without one", async () => {
    expect(await someRow(dataset, hasTrace)).toBe(true);
    expect(await someRow({ ...dataset, count: 1 }, hasTrace)).toBe(false);
  });

  it("does not drop fits_context in silence where the student's context is not known", async () => {
    const prepare = async () => ({
      version: { id: "far", version: 1 },
      prepared: { kind: "remote", model: { capabilities: { logprobs: true, sample: true } } },
      contextLength: null,
    });
    const deps = { models: { prepare }, datasets: { open: async () => dataset } } as never;
    const request = { student: "far", temperature: 0.7, kl: { estimator: "k1", k: 0 }, select: "all", metadata: {} };
    const checked = (fits: number | boolean) =>
      checkRescore(deps, "ds_1", { ...request, fits_context: fits } as unknown as Rescore);
    await expect(checked(true)).rejects.toMatchObject({ code: "invalid_value", param: "fits_context" });
    expect((await checked(100)).filters.fits_context).toBe(100);
  });
});
