import type { Precision } from "../../engine/engine.ts";
import { bytes, fixed, signed } from "../../numbers.ts";
import type { Quality } from "../quality/quality.ts";
import { formatTable } from "../terminal/table.ts";

/** The table below the facts. `needs`: bytes that loading at a precision would take. */
export function describeQuality(
  quality: Quality,
  { budgetBytes, needs }: { budgetBytes: number; needs: (precision: Precision) => number },
): string {
  if ("not_measured" in quality) return `Quality of each precision: not measured (${quality.not_measured}).\n`;
  const { tokens, reference, precisions, too_large: tooLarge } = quality;
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [
    { title: "precision" },
    right("weights"),
    right("mean |Δ log-prob|"),
    right("mean Δ log-prob"),
    right("same next token"),
  ];
  const rows = precisions.map((each) => {
    const size = [each.precision, bytes(each.weight_bytes)];
    if (each.precision === reference) return [...size, "–", "–", "–"];
    return [
      ...size,
      fixed(each.mean_abs_logprob_difference, DIGITS),
      signed(each.mean_logprob_difference, DIGITS),
      `${(each.same_best_token * 100).toFixed(1)} %`,
    ];
  });
  const lines = [
    `Quality of each precision against ${reference}, over ${tokens} tokens of plain text:`,
    formatTable(columns, rows),
    ...tooLarge.map(
      (precision) =>
        `${precision} is not measured: it needs about ${bytes(needs(precision))}, PRECEPTOR_MODEL_MEMORY allows ${bytes(budgetBytes)}.`,
    ),
  ];
  return `${lines.join("\n")}\n`;
}

/** Differences below a ten-thousandth are rounding of the kernels. */
const DIGITS = 4;
