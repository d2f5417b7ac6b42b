/** What the rows of a dataset are like, and some of them. */
import { setImmediate } from "node:timers/promises";
import { PARTS } from "../distill/records.ts";
import { sanitise } from "../sanitise.ts";
import { OTHERS, type Rejected, type RowFigures, type ShownRow } from "./figures.ts";
import { histogramOf } from "./histogram.ts";
import { histogramFigure } from "./histogram-svg.ts";
import { html, line, type Markup } from "./markup.ts";
import { points, short, whole } from "./numbers.ts";
import { figuresGrid, section } from "./page.ts";
import { legend, painted } from "./surprise.ts";
import { table } from "./table.ts";

export const lengthsSection = ({ lengths }: RowFigures): Markup | "" =>
  section(
    "Lengths, in characters",
    figuresGrid(
      (["question", "solution", "reasoning_trace"] as const).map((column) =>
        histogramFigure(column, histogramOf(lengths[column])),
      ),
    ),
  );

/** A hundred thousand values take ten milliseconds to sort, a part: others have their turn in between. */
export async function partsSection({ parts }: RowFigures, of: string): Promise<Markup | ""> {
  const figures: (Markup | "")[] = [];
  for (const part of PARTS) {
    figures.push(histogramFigure(part, histogramOf(parts[part])));
    await setImmediate();
  }
  return section(`Reward and its parts, ${of}`, figuresGrid(figures));
}

export function violationsSection({ violations, rows }: RowFigures): Markup | "" {
  if (violations.size === 0) return "";
  const listed = [...violations].sort(([, a], [, b]) => b - a);
  return section(
    "Violations of the format",
    table(
      ["violation", "rows", "share"],
      listed.map(([name, count]) => [line(name), whole(count), points(count / rows)]),
    ),
  );
}

/** `counts`: of all of them, where the job says it; `figures`: of those that were read. */
export function rejectionsSection(
  counts: Readonly<Record<string, number>> | null,
  figures: RowFigures | null,
): Markup | "" {
  const reasons = figures?.reasons ?? new Map<string, Rejected>();
  const all: Readonly<Record<string, number>> =
    counts ?? Object.fromEntries([...reasons].map(([reason, { count }]) => [reason, count]));
  const total = Object.values(all).reduce((sum, count) => sum + count, 0);
  if (total === 0) return "";
  const rows = Object.entries(all)
    .sort(([a, n], [b, m]) => Number(a === OTHERS) - Number(b === OTHERS) || m - n)
    .map(([reason, count]) => {
      const { rewards = [], detail = null } = reasons.get(reason) ?? {};
      const median = histogramOf(rewards)?.median;
      return [
        html`<code>${line(reason)}</code>`,
        whole(count),
        points(count / total),
        short(median),
        detail === null ? "" : line(detail),
      ];
    });
  const columns = ["reason", "explanations", "share", "median reward", "for example"];
  // Without the rows themselves only their number is known.
  const known = reasons.size > 0 ? columns.length : 3;
  return section(
    "Rejections by reason",
    table(
      columns.slice(0, known),
      rows.map((cells) => cells.slice(0, known)),
      [4],
    ),
  );
}

export function rowsSections({ best, worst }: RowFigures): (Markup | "")[] {
  if (best.length === 0) return [];
  // Of a handful of rows all are among the best.
  const shown = new Set(best.map(({ number }) => number));
  const others = worst.filter(({ number }) => !shown.has(number));
  return [
    section("Best rows", legend(), html`${best.map((row, i) => rowCard(row, i === 0))}`),
    others.length === 0 ? "" : section("Worst rows", html`${others.map((row, i) => rowCard(row, i === 0))}`),
  ];
}

function rowCard({ number, id, question, explanation, solution, parts, reason }: ShownRow, open: boolean): Markup {
  const told = PARTS.filter((part) => part !== "reward" && parts[part] !== undefined);
  const body = html`<summary><b>reward ${short(parts.reward)}</b> · row ${whole(number)}${id === null ? "" : html` · <code>${line(id)}</code>`}${reason === null ? "" : html` · ${line(reason)}`}</summary>
<div><p class="parts">${told.map((part) => `${part} ${short(parts[part])}`).join(" · ")}</p>
<h4>Question</h4><pre>${sanitise(question)}</pre>
${explanation === null ? "" : html`<h4>Explanation</h4>${painted(explanation)}`}
<h4>Solution</h4>${painted(solution)}</div>`;
  return open ? html`<details open>${body}</details>` : html`<details>${body}</details>`;
}
