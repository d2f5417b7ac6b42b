import { html, line, type Markup } from "./markup.ts";
import { short } from "./numbers.ts";

export interface Curve {
  title: string;
  /** Of the horizontal axis: what is counted. */
  unit: string;
  lines: { name: string; points: readonly Point[] }[];
}

export interface Point {
  step: number;
  /** Null: no finite number; the line is broken there. */
  value: number | null;
}

const WIDTH = 320;
const HEIGHT = 150;
const [TOP, BOTTOM, LEFT] = [8, 128, 46];
/** Stretches of a long line, of each of which the lowest and the highest point are drawn: nothing sticks out unseen. */
const STRETCHES = 150;
/** Told apart by colour and dashes. */
export const LINE_KINDS = 4;

export function curveFigure({ title, unit, lines }: Curve): Markup | "" {
  const all = lines.flatMap(({ points }) => points.filter(isFinitePoint));
  if (all.length === 0) return "";
  const [from, to] = rangeOf(all.map(({ step }) => step));
  const [low, high] = rangeOf(all.map(({ value }) => value));
  const x = (step: number): number => LEFT + ((step - from) / (to - from || 1)) * (WIDTH - LEFT - 4);
  const y = (value: number): number =>
    high === low ? (TOP + BOTTOM) / 2 : BOTTOM - ((value - low) / (high - low)) * (BOTTOM - TOP);
  const drawn = lines.map(({ name, points }, i) =>
    strokes(points, x, y).map(
      (d) => html`<path class="line l${i % LINE_KINDS}" d="${d}"><title>${line(name)}</title></path>`,
    ),
  );
  const grid = [low, (low + high) / 2, high].slice(high === low ? 2 : 0);
  return html`<figure>
<figcaption><b>${line(title)}</b>${lines.length > 1 ? html`<span class="keys">${lines.map(({ name }, i) => key(name, i))}</span>` : ""}</figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Curve: ${line(title)} by ${unit}">
${grid.map((value) => html`<line class="grid" x1="${LEFT}" y1="${y(value).toFixed(1)}" x2="${WIDTH}" y2="${y(value).toFixed(1)}"/><text x="${LEFT - 5}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end">${short(value)}</text>`)}
${drawn}
<text x="${LEFT}" y="${HEIGHT - 4}">${short(from)}</text><text x="${WIDTH}" y="${HEIGHT - 4}" text-anchor="end">${unit} ${short(to)}</text>
</svg>
</figure>`;
}

const key = (name: string, i: number): Markup =>
  html`<span class="key"><svg viewBox="0 0 24 8" aria-hidden="true"><path class="line l${i % LINE_KINDS}" d="M0 4H24"/></svg>${line(name)}</span>`;

type FinitePoint = Point & { value: number };
const isFinitePoint = (point: Point): point is FinitePoint => point.value !== null && Number.isFinite(point.value);

/** A loop, for a spread of a hundred thousand arguments overflows the stack. */
function rangeOf(values: readonly number[]): [number, number] {
  let [low, high] = [values[0]!, values[0]!];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** One path for every stretch without a gap; a single point is a dot. */
function strokes(points: readonly Point[], x: (step: number) => number, y: (value: number) => number): string[] {
  const paths: string[] = [];
  let open: string[] = [];
  const close = (): void => {
    if (open.length > 0) paths.push(`M${open.length === 1 ? `${open[0]}h0.01` : open.join("L")}`);
    open = [];
  };
  for (const point of thinned(points)) {
    if (isFinitePoint(point)) open.push(`${x(point.step).toFixed(1)} ${y(point.value).toFixed(1)}`);
    else close();
  }
  close();
  return paths;
}

export function thinned(points: readonly Point[]): readonly Point[] {
  if (points.length <= 2 * STRETCHES) return points;
  const found: Point[] = [];
  for (let i = 0; i < STRETCHES; i++) {
    const stretch = points.slice(
      Math.floor((i * points.length) / STRETCHES),
      Math.floor(((i + 1) * points.length) / STRETCHES),
    );
    const finite = stretch.filter(isFinitePoint);
    if (finite.length < stretch.length) found.push({ step: stretch[0]!.step, value: null });
    if (finite.length === 0) continue;
    const low = finite.reduce((a, b) => (b.value < a.value ? b : a));
    const high = finite.reduce((a, b) => (b.value > a.value ? b : a));
    found.push(...(low === high ? [low] : low.step < high.step ? [low, high] : [high, low]));
  }
  return found;
}
