import type { DatasetOpener } from "../../src/datasets/open.ts";
import type { DistillConfig } from "../../src/distill/config.ts";
import { fail } from "../../src/errors.ts";
import type { JobRecord, JobStatus } from "../../src/jobs/records.ts";
import { collectJob, type JobReport } from "../../src/report/collect-job.ts";
import { renderJobReport } from "../../src/report/job-page.ts";
import type { DistillLab, DistillRun } from "./fixture.ts";

/** The report of a job as a server makes it that finds it in this state. */
export async function reportOf(
  { deps, datasets }: Pick<DistillLab, "deps" | "datasets">,
  run: DistillRun,
  config: DistillConfig,
  status: JobStatus,
  result: unknown = null,
): Promise<{ report: JobReport; page: string }> {
  const times = { createdAt: new Date(0), startedAt: new Date(0), finishedAt: null };
  const job = { id: run.job, status, config, configHash: "sha256:config", result, error: null, ...times };
  const now = () => ({ ...job, progress: run.progress }) as unknown as JobRecord;
  const opener: DatasetOpener = {
    async find(id) {
      const found = datasets.find((one) => one.id === id);
      if (!found) throw fail("not_found", `there is no dataset ${id}`);
      return found;
    },
    openDataset: async (id) => (await deps.dataset(id)) as never,
  };
  const queue = {
    find: async () => now(),
    async metrics() {
      const series: Record<string, { step: number; value: number }[]> = {};
      for (const [step, values] of run.metrics) {
        for (const [name, value] of Object.entries(values)) {
          series[name] ??= [];
          series[name].push({ step, value });
        }
      }
      return series;
    },
  };
  const { signal } = new AbortController();
  const report = await collectJob({ datasets: opener, queue, artifacts: deps.artifacts }, now(), signal);
  return { report, page: await renderJobReport(report, { at: new Date(0), version: "0" }) };
}
