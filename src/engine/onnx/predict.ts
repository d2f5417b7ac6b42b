import { DRAW_BLOCK } from "../../graph/head.ts";
import { headRows } from "./limits.ts";
import { type DrawOptions, type HeadRow, headTemperature, neededRow } from "./sampler.ts";
import type { HeadOutput, Sessions } from "./sessions.ts";

const OUTPUTS = {
  best: ["best_id", "best_prob"],
  draw: ["draw_block", "draw_probs", "draw_before", "draw_at", "draw_total"],
  probs: ["probs"],
  logits: ["probs", "logits"],
} as const satisfies Record<HeadRow["kind"], readonly HeadOutput[]>;

/** One row of hidden states and how its next token is drawn. */
export interface DrawRequest {
  options: DrawOptions;
  /** In [0, 1). */
  uniform: number;
}

/** What the head says of hidden rows (N, hidden), each at its own request's temperature. */
export function predict(sessions: Sessions, hidden: Float32Array, requests: readonly DrawRequest[]): HeadRow[] {
  const { hiddenSize, vocabSize } = sessions.config;
  const limit = headRows(vocabSize);
  const rows: HeadRow[] = [];
  for (let start = 0; start < requests.length; start += limit) {
    const part = requests.slice(start, start + limit);
    const kinds = part.map(({ options }) => neededRow(options));
    const fetches: HeadOutput[] = [...new Set(kinds.flatMap((kind) => OUTPUTS[kind]))];
    const inputs = {
      inverseTemperature: Float32Array.from(part, ({ options }) => 1 / headTemperature(options)),
      uniform: Float32Array.from(part, ({ uniform }) => uniform),
    };
    const out = sessions.head(hidden.subarray(start * hiddenSize, (start + part.length) * hiddenSize), inputs, fetches);
    const slice = (matrix: Float32Array, i: number, width: number): Float32Array =>
      matrix.subarray(i * width, (i + 1) * width);
    for (const [i, kind] of kinds.entries()) {
      if (kind === "best") rows.push({ kind, id: Number(out.best_id[i]), prob: out.best_prob[i]! });
      else if (kind === "draw") {
        rows.push({
          kind,
          block: Number(out.draw_block[i]),
          probs: slice(out.draw_probs, i, DRAW_BLOCK),
          before: out.draw_before[i]!,
          at: out.draw_at[i]!,
          total: out.draw_total[i]!,
        });
      } else {
        const probs = slice(out.probs, i, vocabSize);
        rows.push(kind === "probs" ? { kind, probs } : { kind, probs, logits: slice(out.logits, i, vocabSize) });
      }
    }
  }
  return rows;
}
