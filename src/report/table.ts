import { html, type Markup } from "./markup.ts";

export type Cell = string | number | Markup;

/** The first column names its row; the others are numbers unless `texts` says otherwise. Scrolls by itself where it is too wide. */
export function table(
  columns: readonly string[],
  rows: readonly (readonly Cell[])[],
  texts: readonly number[] = [],
): Markup {
  const kind = (i: number): string => (texts.includes(i) ? "text" : "number");
  return html`<div class="scroll"><table>
<thead><tr>${columns.map((column, i) => html`<th scope="col"${i === 0 ? "" : html` class="${kind(i)}"`}>${column}</th>`)}</tr></thead>
<tbody>${rows.map(
    ([first = "", ...cells]) =>
      html`<tr><th scope="row">${first}</th>${cells.map((cell, i) => html`<td class="${kind(i + 1)}">${cell}</td>`)}</tr>`,
  )}</tbody>
</table></div>`;
}

/** Hashes: a line of their own. */
const LONG = new Set(["Content hash", "Config hash"]);

/** Names with values, the absent ones left out. */
export function facts(pairs: readonly (readonly [string, Cell | null | undefined])[]): Markup {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl>${told.map(([name, value]) => html`<div class="${LONG.has(name) ? "long" : ""}"><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}
