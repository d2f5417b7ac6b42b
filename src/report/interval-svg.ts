import { html, line, type Markup } from "./markup.ts";

export interface IntervalRow {
  name: string;
  /** As it is written beside the name. */
  told: string;
  value: number;
  interval: { low: number; high: number } | null;
  /** The one that it is all about. */
  main?: boolean;
}

const WIDTH = 320;
const ROW = 38;

/** Values with their intervals below each other, on one axis from `from` to `to`; `zero` marks "no difference". */
export function intervalFigure(
  title: string,
  rows: readonly IntervalRow[],
  { from, to, zero, label }: { from: number; to: number; zero?: number; label: (value: number) => string },
): Markup | "" {
  if (rows.length === 0) return "";
  const height = rows.length * ROW + 22;
  const x = (value: number): string => (6 + ((value - from) / (to - from || 1)) * (WIDTH - 12)).toFixed(1);
  const zeroMark = (y: number): Markup | "" =>
    zero === undefined ? "" : html`<line class="zero" x1="${x(zero)}" y1="${y - 6}" x2="${x(zero)}" y2="${y + 6}"/>`;
  const bars = rows.map(({ name, told, value, interval, main }, i) => {
    const y = i * ROW + 26;
    return html`<g class="${main ? "main" : ""}"><text x="0" y="${y - 10}">${line(name)}</text><text x="${WIDTH}" y="${y - 10}" text-anchor="end">${told}</text>
<line class="grid" x1="6" y1="${y}" x2="${WIDTH - 6}" y2="${y}"/>${zeroMark(y)}${interval ? html`<line class="interval" x1="${x(interval.low)}" y1="${y}" x2="${x(interval.high)}" y2="${y}"/>` : ""}<circle cx="${x(value)}" cy="${y}" r="4.5"/></g>`;
  });
  return html`<figure>
<figcaption><b>${title}</b></figcaption>
<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${title}">
${bars}
<text x="0" y="${height - 4}">${label(from)}</text>${zero === undefined ? "" : html`<text x="${x(zero)}" y="${height - 4}" text-anchor="middle">${label(zero)}</text>`}<text x="${WIDTH}" y="${height - 4}" text-anchor="end">${label(to)}</text>
</svg>
</figure>`;
}
