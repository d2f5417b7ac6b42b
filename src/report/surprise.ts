/** Texts whose tokens are coloured by what they cost the student: one hue, and the more surprising the further from the paper. */
import { fixed, percent } from "../numbers.ts";
import { sanitise } from "../sanitise.ts";
import { html, type Markup, raw } from "./markup.ts";
import { whole } from "./numbers.ts";
import type { PaintedText, Piece } from "./painted.ts";

/** Probabilities between the levels; what is likelier than the first has the paper's colour. */
const BREAKS = [0.9, 0.7, 0.5, 0.25, 0.1, 0.03, 0.01] as const;
const NATS = BREAKS.map((p) => -Math.log(p));

export const levelOf = (surprise: number): number => NATS.filter((nats) => surprise > nats).length;

/** Steps of equal lightness in OKLab look equally large, also to those who see no hues. */
const STEP = 0.08;
const HUE = 55;

/** The levels as rules of a style sheet, on light or on dark paper. Text on them has a contrast of 4.5 or more. */
export function surpriseRules(paper: "light" | "dark"): string {
  return BREAKS.map((_, i) => {
    const lightness = paper === "light" ? 0.94 - i * STEP : 0.3 + i * STEP;
    const chroma = 0.04 + Math.min(i, 6) * 0.015;
    const ink = lightness > 0.58 ? "#000" : "#fff";
    return `.s${i + 1}{background:oklch(${lightness.toFixed(2)} ${chroma.toFixed(3)} ${HUE});color:${ink}}`;
  }).join("\n");
}

export function painted({ pieces, cut }: PaintedText): Markup {
  return html`<pre class="painted">${pieces.map(pieceMarkup)}${cut > 0 ? html`<i>… ${whole(cut)} more characters</i>` : ""}</pre>`;
}

function pieceMarkup({ text, surprise, kl }: Piece): Markup | string {
  const visible = sanitise(text);
  if (surprise === null) return visible;
  const title = `−log p ${fixed(surprise, 3)} · p ${percent(Math.exp(-surprise))}${kl === null ? "" : ` · KL ${fixed(kl, 3)}`}`;
  // A line break alone would be invisible, so it is shown as a sign, then taken.
  return html`<span class="s${levelOf(surprise)}" title="${title}">${visible.replaceAll("\n", "⏎\n")}</span>`;
}

export function legend(): Markup {
  const share = (p: number): string => String(Math.round(100 * p));
  const names = BREAKS.map((p, i) =>
    i + 1 < BREAKS.length ? `${share(p)}–${share(BREAKS[i + 1]!)} %` : `below ${share(p)} %`,
  );
  return html`<p class="legend"><span>Probability the student gave each token:</span> <span class="s0">above ${share(BREAKS[0])} %</span>${names.map(
    (name, i) => html`${raw(" ")}<span class="s${i + 1}">${name}</span>`,
  )}<br>Surprise is −log p in nats; each token's title has its numbers.</p>`;
}
