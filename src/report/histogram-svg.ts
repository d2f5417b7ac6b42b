import type { Histogram } from "./histogram.ts";
import { html, line, type Markup } from "./markup.ts";
import { short, whole } from "./numbers.ts";

/** Of a drawing; on a phone a unit is about a pixel. */
const WIDTH = 320;
const HEIGHT = 110;
const BOTTOM = 92;

/** A figure with its numbers below; nothing at all where there are no values. */
export function histogramFigure(title: string, histogram: Histogram | null): Markup | "" {
  if (!histogram) return "";
  const { count, min, median, mean, p90, max } = histogram;
  const told =
    min === max
      ? html`<p class="numbers">always ${short(min)}</p>`
      : html`${drawing(title, histogram)}<p class="numbers">min ${short(min)} · median ${short(median)} · mean ${short(mean)} · 90 % ≤ ${short(p90)} · max ${short(max)}</p>`;
  return html`<figure>
<figcaption><b>${line(title)}</b> <span>${whole(count)} values</span></figcaption>
${told}
</figure>`;
}

function drawing(title: string, { bins, min, max, median }: Histogram): Markup {
  const tallest = Math.max(...bins.map(({ count }) => count));
  const width = WIDTH / bins.length;
  const [first, last] = [bins[0]!, bins.at(-1)!];
  const place = ((median - first.from) / (last.to - first.from || 1)) * WIDTH;
  const bars = bins.map(({ from, to, count }, i) => {
    const height = count === 0 ? 0 : Math.max(1, (count / tallest) * (BOTTOM - 6));
    const [x, y] = [(i * width + 0.5).toFixed(2), (BOTTOM - height).toFixed(2)];
    return html`<rect class="bar" x="${x}" y="${y}" width="${Math.max(1, Math.min(60, width - 1)).toFixed(2)}" height="${height.toFixed(2)}"><title>${short(from)} to ${short(to)}: ${whole(count)}</title></rect>`;
  });
  return html`<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Histogram: ${line(title)}">
${bars}<line class="axis" x1="0" y1="${BOTTOM}" x2="${WIDTH}" y2="${BOTTOM}"/>
${bins.length > 1 ? html`<line class="median" x1="${place.toFixed(2)}" y1="2" x2="${place.toFixed(2)}" y2="${BOTTOM}"><title>median ${short(median)}</title></line>` : ""}
<text x="0" y="${HEIGHT - 4}">${min < first.from ? "≤ " : ""}${short(first.from)}</text>
<text x="${WIDTH}" y="${HEIGHT - 4}" text-anchor="end">${max > last.to ? "≥ " : ""}${short(bins.length > 1 ? last.to : max)}</text>
</svg>`;
}
