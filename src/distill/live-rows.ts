import type { DistillConfig } from "./config.ts";
import { outcomes } from "./generate.ts";
import type { SourceDataset } from "./job-deps.ts";
import { rowsOf } from "./output.ts";

/**
 * Rows of a job that runs, by their number among the accepted or the rejected ones: those of the first `questions` questions.
 * They are what the dataset will hold. The journal is read from its beginning every time: selection goes in order.
 */
export async function liveRows(
  place: { artifacts: string },
  job: string,
  config: DistillConfig,
  dataset: SourceDataset,
  questions: number,
  { part, after, limit }: { part: "accepted" | "rejected"; after: number; limit: number },
): Promise<{ data: ({ number: number } & Record<string, unknown>)[]; has_more: boolean }> {
  const data: ({ number: number } & Record<string, unknown>)[] = [];
  let number = -1;
  for await (const outcome of outcomes(place, job, config, dataset, questions)) {
    for (const row of rowsOf(outcome, job, config)[part]) {
      if (++number <= after) continue;
      if (data.length === limit) return { data, has_more: true };
      data.push({ number, ...row });
    }
  }
  return { data, has_more: false };
}
