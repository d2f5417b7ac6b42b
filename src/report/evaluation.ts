/** What became of the student: accuracy before and after with intervals, the difference, and the controls beside it. */
import type { Control } from "../distill/config.ts";
import type { ControlResult } from "../distill/student.ts";
import type { EvaluationSummary, PairedDifference } from "../evaluate/summary.ts";
import { type IntervalRow, intervalFigure } from "./interval-svg.ts";
import { html, type Markup } from "./markup.ts";
import { points, pValue, short, signedPoints, whole } from "./numbers.ts";
import { figuresGrid, section } from "./page.ts";
import { type Cell, table } from "./table.ts";

/** As far as they are there: a job that runs has some of them. */
export interface Evaluations {
  before?: EvaluationSummary | undefined;
  after?: EvaluationSummary | undefined;
  uplift?: PairedDifference | undefined;
  controls: Partial<Record<Control, Partial<Pick<ControlResult, "evaluation" | "uplift" | "behind">>>>;
  /** That were asked for. */
  asked: readonly Control[];
}

const CONTROLS: readonly Control[] = ["solutions", "reasoning_trace"];
const NAMES: Record<Control, string> = {
  solutions: "Control: solutions alone",
  reasoning_trace: "Control: the rows' own traces",
};

export function evaluationSection(found: Evaluations): Markup | "" {
  const { before, after, uplift, controls, asked } = found;
  const summaries = listed([
    ["Before", before, false],
    ["After distillation", after, true],
    ...CONTROLS.map((control) => [NAMES[control], controls[control]?.evaluation, false] as const),
  ]);
  if (summaries.length === 0) return "";
  const differences = listed([
    ["Distilled − before", uplift, true],
    ...CONTROLS.map((control) => [`${NAMES[control]} − before`, controls[control]?.uplift, false] as const),
    ...CONTROLS.map(
      (control) => [`Distilled − ${NAMES[control].toLowerCase()}`, controls[control]?.behind, true] as const,
    ),
  ]);
  const missing = CONTROLS.filter((control) => !controls[control]?.evaluation);
  return section(
    "The student, measured",
    uplift && before && after
      ? finding(before, after, uplift)
      : html`<p class="note">The job is not done: what has been measured so far.</p>`,
    figuresGrid(
      [
        intervalFigure("Accuracy, 95 % interval", summaries.flatMap(accuracyRow), { from: 0, to: 1, label: points }),
        intervalFigure("Difference in points, 95 % interval", differences.map(differenceRow), {
          ...around(differences.map(([, difference]) => difference)),
          zero: 0,
          label: signedPoints,
        }),
      ],
      "pair",
    ),
    accuracyTable(summaries),
    differences.length === 0 ? "" : differenceTable(differences),
    ...missing.map(
      (control) =>
        html`<p class="note">${NAMES[control]}: ${asked.includes(control) ? "not measured yet" : "not asked for"}.</p>`,
    ),
  );
}

type Named<T> = readonly [name: string, value: T, main: boolean];

const listed = <T>(all: readonly (readonly [string, T | undefined, boolean])[]): Named<T>[] =>
  all.filter((one): one is Named<T> => one[1] !== undefined);

function finding(
  { accuracy }: EvaluationSummary,
  after: EvaluationSummary,
  { difference, interval, mcnemar_p: p, rows }: PairedDifference,
): Markup {
  if (accuracy === null || after.accuracy === null)
    return html`<p class="finding">There was no row to measure with.</p>`;
  const chance =
    interval === null
      ? ""
      : interval.low > 0 || interval.high < 0
        ? " Zero lies outside the interval."
        : " Zero lies inside the interval: this may be chance.";
  return html`<p class="finding">On ${whole(rows)} rows accuracy went from ${points(accuracy)} to ${points(after.accuracy)}: <b>${signedPoints(difference)} points</b>${
    interval
      ? html` (95 % interval ${signedPoints(interval.low)} to ${signedPoints(interval.high)}${p === null ? "" : `; McNemar p ${pValue(p)}`})`
      : ""
  }.${chance}</p>`;
}

const span = (low: string, high: string): string => `${low} to ${high}`;

function accuracyRow([name, { accuracy, interval }, main]: Named<EvaluationSummary>): IntervalRow[] {
  return accuracy === null ? [] : [{ name, told: points(accuracy), value: accuracy, interval, main }];
}

function differenceRow([name, { difference, interval }, main]: Named<PairedDifference>): IntervalRow {
  return { name, told: signedPoints(difference), value: difference, interval, main };
}

/** As far to the left as to the right, in steps of ten points. */
function around(differences: readonly PairedDifference[]): { from: number; to: number } {
  const furthest = Math.max(
    0.1,
    ...differences.flatMap(({ difference, interval }) =>
      [difference, interval?.low ?? 0, interval?.high ?? 0].map(Math.abs),
    ),
  );
  const reach = Math.min(1, Math.ceil(furthest * 10) / 10);
  return { from: -reach, to: reach };
}

const accuracyTable = (rows: readonly Named<EvaluationSummary>[]): Markup =>
  table(
    ["", "accuracy", "95 % interval", "rows", "samples", "answer read", "cut off", "mean tokens"],
    rows.map(([name, { accuracy, interval, counts, answered, truncated, mean_completion_tokens: tokens }]): Cell[] => [
      name,
      accuracy === null ? "–" : points(accuracy),
      interval ? span(points(interval.low), points(interval.high)) : "–",
      whole(counts.rows),
      whole(counts.samples),
      points(answered),
      points(truncated),
      short(tokens),
    ]),
  );

const differenceTable = (rows: readonly Named<PairedDifference>[]): Markup =>
  table(
    ["", "points", "95 % interval", "McNemar p", "better", "worse", "rows"],
    rows.map(([name, { difference, interval, mcnemar_p: p, improved, worsened, rows: count }]): Cell[] => [
      name,
      signedPoints(difference),
      interval ? span(signedPoints(interval.low), signedPoints(interval.high)) : "–",
      p === null ? "–" : pValue(p),
      whole(improved),
      whole(worsened),
      whole(count),
    ]),
  );
