/** What is around every report. */
import { html, line, type Markup, raw } from "./markup.ts";
import { POLICY, STYLE } from "./style.ts";

export interface Page {
  kind: string;
  title: string;
  body: Markup | readonly (Markup | "")[];
  made: { at: Date; version: string };
}

/** A whole document. The policy is in it too, for it holds as well where the page is a file. */
export async function renderReport({ kind, title, body, made }: Page): Promise<string> {
  return String(
    await html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${line(title)} · ${kind}</title>
<link rel="icon" href="data:,">
<style>${raw(STYLE)}</style>
</head>
<body>
<main>
<header><p class="kind">${kind}</p><h1>${line(title)}</h1></header>
${body}
<footer>Preceptor ${made.version} · ${made.at.toISOString().slice(0, 19).replace("T", " ")} UTC</footer>
</main>
</body>
</html>
`,
  );
}

/** Nothing where there is nothing in it. */
export function section(title: string, ...content: readonly (Markup | "")[]): Markup | "" {
  return content.every((part) => part === "")
    ? ""
    : html`<section><h2>${title}</h2>
${content}</section>`;
}

/** `pair`: two that are read together, so each may be wider. */
export const figuresGrid = (figures: readonly (Markup | "")[], kind: "many" | "pair" = "many"): Markup | "" =>
  figures.every((figure) => figure === "") ? "" : html`<div class="figures ${kind}">${figures}</div>`;
