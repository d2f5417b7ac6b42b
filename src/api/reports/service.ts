import { createLimiter } from "../../concurrency.ts";
import type { DatasetOpener } from "../../datasets/open.ts";
import type { JobQueue } from "../../jobs/queue.ts";
import type { JobRecord } from "../../jobs/records.ts";
import { collectDataset } from "../../report/collect-dataset.ts";
import { collectJob, rowsMade } from "../../report/collect-job.ts";
import { renderDatasetReport } from "../../report/dataset-page.ts";
import { renderJobReport } from "../../report/job-page.ts";

export interface ReportService {
  /** A page. Throws `not_found`, `invalid_dataset`. */
  dataset(id: string, signal: AbortSignal): Promise<string>;
  /** The same of a distillation job, while it runs too. */
  job(id: string, signal: AbortSignal): Promise<string>;
}

export interface ReportDeps {
  datasets: DatasetOpener;
  queue: Pick<JobQueue, "metrics" | "find">;
  /** A distillation job; throws `not_found`. */
  findJob(id: string): Promise<JobRecord>;
  /** Folder of what jobs leave behind. */
  artifacts: string;
  version: string;
  now(): Date;
}

/** Reports made at once: each takes a core for a moment, and ten at a time would take the server from everybody else. */
const REPORTS_AT_ONCE = 1;

export function createReportService({ findJob, version, now, ...deps }: ReportDeps): ReportService {
  const { datasets, queue } = deps;
  const inTurn = createLimiter(REPORTS_AT_ONCE);
  const made = () => ({ at: now(), version });
  return {
    async dataset(id, signal) {
      const head = await datasets.find(id);
      const { part, job } = head.source;
      const maker = part === "output" && job !== undefined ? await queue.find(job) : undefined;
      const rejected = (maker && rowsMade(maker)?.rejected) ?? null;
      return inTurn(async () => {
        signal.throwIfAborted();
        const figures = await collectDataset(await datasets.openDataset(id), head.bytes, signal);
        return renderDatasetReport({ head, figures, rejected, made: made() });
      });
    },
    async job(id, signal) {
      await findJob(id);
      return inTurn(async () => {
        signal.throwIfAborted();
        return renderJobReport(await collectJob(deps, await findJob(id), signal), made());
      });
    },
  };
}
