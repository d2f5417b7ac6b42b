import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { QualityReport } from "./measure.ts";

/** Changes whenever the same model and text would be measured otherwise. */
const FORMAT = 1;

/** What figures belong to. */
export interface QualityKey {
  weightsHash: string;
  tokenizerHash: string;
  /** Of the text: they change with it, and with what a tokenizer puts before it. */
  ids: Int32Array;
}

/** Figures by model, as JSON files in one directory. */
export interface QualityStore {
  /** Undefined when there are none, or the file is damaged. */
  find(key: QualityKey): Promise<QualityReport | undefined>;
  /** The file appears complete or not at all. */
  save(key: QualityKey, report: QualityReport): Promise<void>;
}

export function createQualityStore(directory: string): QualityStore {
  const fileOf = ({ weightsHash, tokenizerHash, ids }: QualityKey): string => {
    const text = createHash("sha256").update(`${FORMAT} ${ids.join()}`).digest("hex").slice(0, 8);
    return path.join(directory, `${bare(weightsHash)}-${bare(tokenizerHash)}-${text}.json`);
  };
  return {
    async find(key) {
      try {
        const report = JSON.parse(await readFile(fileOf(key), "utf8")) as QualityReport;
        return isWhole(report) ? report : undefined;
      } catch {
        return undefined;
      }
    },
    async save(key, report) {
      await mkdir(directory, { recursive: true });
      const file = fileOf(key);
      const temporary = `${file}.${randomUUID()}.tmp`;
      try {
        await writeFile(temporary, `${JSON.stringify(report, null, 2)}\n`, { flag: "wx" });
        await rename(temporary, file);
      } finally {
        await rm(temporary, { force: true });
      }
    },
  };
}

/** Names of files contain no colon: some systems forbid it. */
const bare = (hash: string): string => hash.replace(/^sha256:/, "").replace(/[^\w.-]/g, "_");

function isWhole({ tokens, reference, precisions }: QualityReport): boolean {
  return (
    Number.isInteger(tokens) &&
    precisions[0]?.precision === reference &&
    precisions.every((each) =>
      [each.weight_bytes, each.mean_abs_logprob_difference, each.mean_logprob_difference, each.same_best_token].every(
        Number.isFinite,
      ),
    )
  );
}
