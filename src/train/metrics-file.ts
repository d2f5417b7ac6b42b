/** `metrics.jsonl` of a job: one line per step, as other programs plot it. */
import { appendFile, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";

export interface MetricsFile {
  append(step: number, values: Readonly<Record<string, number>>): Promise<void>;
}

/** Lines of steps that will be done again are dropped. */
export async function openMetricsFile(file: string, fromStep: number): Promise<MetricsFile> {
  await mkdir(path.dirname(file), { recursive: true });
  const before = await readFile(file, "utf8").catch(() => "");
  const kept = before.split("\n").filter((line) => line !== "" && stepOf(line) <= fromStep);
  // Aside and by a rename: a kill in between would lose what is kept.
  await writeFile(`${file}.tmp`, kept.map((line) => `${line}\n`).join(""));
  await rename(`${file}.tmp`, file);
  return { append: (step, values) => appendFile(file, `${JSON.stringify({ step, ...values })}\n`) };
}

/** A line that a kill cut off belongs to no step. */
function stepOf(line: string): number {
  try {
    return (JSON.parse(line) as { step: number }).step;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
