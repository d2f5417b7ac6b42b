/** The README.md of a dataset on a hub: the front matter is what its tools read, the rest is for people. */
import type { DatasetRecord } from "../db/dataset-store.ts";

export const DATA_FILE = "data/train.parquet";

/** Columns of the Parquet file, as writeParquet makes them. */
const FEATURES = ["id", "question", "solution", "reasoning_trace", "metadata", "provenance"];
const MEANING: Readonly<Record<string, string>> = {
  id: "the row's own id, or null",
  question: "what is asked",
  solution: "the solution alone",
  reasoning_trace: "the explanation that leads to it, or null",
  metadata: "JSON in a text, or null: what else is known of the row",
  provenance: "JSON in a text, or null: the models, seed and scores that a generated row came from",
};
/** The hub sorts by these. */
const SIZES: readonly (readonly [below: number, name: string])[] = [
  [1_000, "n<1K"],
  [10_000, "1K<n<10K"],
  [100_000, "10K<n<100K"],
  [1_000_000, "100K<n<1M"],
  [Number.POSITIVE_INFINITY, "1M<n<10M"],
];

export type CardHead = Pick<DatasetRecord, "id" | "name" | "contentHash" | "rows" | "source">;

/** The licence is left to whoever publishes: nobody else knows it. */
export function datasetCard({ id, name, contentHash, rows, source }: CardHead): string {
  const features = FEATURES.map((column) => `  - name: ${column}\n    dtype: string`).join("\n");
  const table = FEATURES.map((column) => `| \`${column}\` | ${MEANING[column]} |`).join("\n");
  return `---
# license: name one before you publish, for example apache-2.0
pretty_name: ${JSON.stringify(name ?? id)}
size_categories:
- ${SIZES.find(([below]) => rows < below)?.[1]}
task_categories:
- text-generation
configs:
- config_name: default
  data_files:
  - split: train
    path: ${DATA_FILE}
dataset_info:
  features:
${features}
---

# ${(name ?? id).replaceAll(/\s+/g, " ")}

${rows} rows. Made by Preceptor from the dataset \`${id}\`, whose rows have the hash \`sha256:${contentHash}\`.

| column | |
|---|---|
${table}

\`\`\`json
${JSON.stringify({ source }, null, 2)}
\`\`\`
`;
}
