import type { DatasetRecord } from "../db/dataset-store.ts";
import { bytes as size } from "../numbers.ts";
import type { DatasetFigures } from "./collect-dataset.ts";
import { lineageSection } from "./lineage.ts";
import { html, line, type Markup } from "./markup.ts";
import { whole } from "./numbers.ts";
import { type Page, renderReport } from "./page.ts";
import { lengthsSection, partsSection, rejectionsSection, rowsSections, violationsSection } from "./rows.ts";
import { facts } from "./table.ts";

export interface DatasetReport {
  head: DatasetRecord;
  figures: DatasetFigures;
  /** By reason, of the job that accepted these rows. */
  rejected: Readonly<Record<string, number>> | null;
  made: Page["made"];
}

export async function renderDatasetReport({ head, figures, rejected, made }: DatasetReport): Promise<string> {
  const { source } = head;
  return renderReport({
    kind: "Dataset report",
    title: head.name ?? head.id,
    made,
    body: [
      facts([
        ["Id", html`<code>${head.id}</code>`],
        ["Rows", whole(head.rows)],
        ["Size", size(head.bytes)],
        ["Columns", head.columns.join(", ")],
        ["Repeated questions", whole(head.duplicates)],
        ["Made", head.createdAt.toISOString().slice(0, 10)],
        ["From", sourceOf(source)],
        ["Content hash", html`<code>sha256:${head.contentHash}</code>`],
      ]),
      sampleNote(figures),
      rejectionsSection(rejected, figures),
      await partsSection(figures, "of each row"),
      violationsSection(figures),
      lengthsSection(figures),
      ...rowsSections(figures),
      lineageSection(
        [
          ["Job", source.job],
          ["Dataset", source.dataset],
          ["Teacher", source.teacher],
          ["Student", source.student],
        ],
        [],
      ),
    ],
  });
}

function sourceOf({ type, format, filename, part }: DatasetRecord["source"]): string {
  if (type === "job") return `a job's ${line(part ?? "rows")}`;
  return type === "rows" ? "rows in a request" : line([format, filename].filter(Boolean).join(", "));
}

export function sampleNote({ rows, of }: DatasetFigures): Markup | "" {
  if (rows >= of) return "";
  return html`<p class="warning">A sample: ${whole(rows)} of ${whole(of)} rows, evenly spaced, were read. Shares and percentiles are estimates; the best and worst rows are those of the sample.</p>`;
}
