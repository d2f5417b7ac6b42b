import { html, line, type Markup } from "./markup.ts";
import { section } from "./page.ts";

/** What something was made from or led to; null ids are left out. */
export type Relatives = readonly (readonly [what: string, id: string | null | undefined])[];

export function lineageSection(parents: Relatives, children: Relatives): Markup | "" {
  return section("Lineage", list("Made from", parents), list("Led to", children));
}

function list(title: string, relatives: Relatives): Markup | "" {
  const known = relatives.filter(([, id]) => typeof id === "string");
  if (known.length === 0) return "";
  return html`<h3>${title}</h3><ul class="lineage">${known.map(([what, id]) => html`<li>${what}: <code>${line(id)}</code></li>`)}</ul>`;
}
