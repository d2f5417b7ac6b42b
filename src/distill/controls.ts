/** What the same student is trained on instead, for comparison: the same questions, as many rows, another text. */
import type { DatasetRow } from "../datasets/row.ts";
import type { Control, DistillConfig } from "./config.ts";
import type { DistillDeps, SourceDataset } from "./job-deps.ts";
import { datasetId, sourceOf } from "./output.ts";

/** `output`: of the job. Null: no row has what the control needs. */
export async function writeControl(
  deps: DistillDeps,
  job: string,
  config: DistillConfig,
  control: Control,
  { source, output }: { source: SourceDataset; output: SourceDataset },
  signal: AbortSignal,
): Promise<string | null> {
  const part = `control-${control}`;
  const kept = await deps.keep(
    { id: datasetId(job, part), name: config.name && `${config.name}-${part}`, source: sourceOf(job, part, config) },
    async (writer) => {
      for (let i = 0; i < output.count; i++) {
        signal.throwIfAborted();
        const row = await instead(control, (await output.row(i)) as DatasetRow, source);
        if (row) await writer.add(row);
      }
    },
    signal,
  );
  return kept?.id ?? null;
}

async function instead(
  control: Control,
  { reasoning_trace: _, provenance, ...row }: DatasetRow,
  source: SourceDataset,
): Promise<DatasetRow | null> {
  const { id, question, solution, metadata } = row;
  const { row: number, sample } = provenance ?? {};
  const from = { control, row: number, ...(sample === undefined ? {} : { sample }) };
  const words = { ...(id === undefined ? {} : { id }), question, solution };
  const more = { ...(metadata === undefined ? {} : { metadata }), provenance: from };
  if (control === "solutions") return { ...words, ...more };
  const own = (await source.row(number as number)).reasoning_trace;
  return own === undefined ? null : { ...words, reasoning_trace: own, ...more };
}
