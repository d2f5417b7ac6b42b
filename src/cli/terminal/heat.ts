import type { Colours, Style } from "./style.ts";

/** One step of a colour scale: applies from `from` upwards. */
interface Step {
  /** Nats. */
  from: number;
  /** Absent: the text keeps the terminal's own colours, nothing to see here. */
  colours?: Colours;
  label: string;
}

/**
 * A colour scale over a number in nats, calm to alarming, the larger the worse. Steps are few and their colours far
 * apart, so that they can be told from each other in any theme; text on them is black or white.
 */
export interface HeatScale {
  title: string;
  steps: readonly Step[];
}

const BLUE: Colours = { foreground: 231, background: 25 };
const OLIVE: Colours = { foreground: 231, background: 58 };
const AMBER: Colours = { foreground: 16, background: 178 };
const ORANGE: Colours = { foreground: 16, background: 208 };
const RED: Colours = { foreground: 231, background: 160 };

/** Surprise of a solution token: −log p under the student, at the scored temperature. */
export const SURPRISE: HeatScale = {
  title: "probability the student gave each solution token",
  steps: [
    { from: Number.NEGATIVE_INFINITY, label: "above 80 %" },
    { from: -Math.log(0.8), colours: OLIVE, label: "80–50 %" },
    { from: -Math.log(0.5), colours: AMBER, label: "50–10 %" },
    { from: -Math.log(0.1), colours: ORANGE, label: "10–1 %" },
    { from: -Math.log(0.01), colours: RED, label: "below 1 %" },
  ],
};

/** KL of a thought token: how much less natural the student finds it than the teacher did. */
export const DIVERGENCE: HeatScale = {
  title: "KL of each explanation token (nats; blue: the student finds it more natural than the teacher)",
  steps: [
    { from: Number.NEGATIVE_INFINITY, colours: BLUE, label: "below −0.25" },
    { from: -0.25, label: "about 0" },
    { from: 0.25, colours: OLIVE, label: "0.25–1" },
    { from: 1, colours: AMBER, label: "1–2" },
    { from: 2, colours: ORANGE, label: "2–4" },
    { from: 4, colours: RED, label: "above 4" },
  ],
};

export function coloursOf(scale: HeatScale, value: number): Colours | undefined {
  return scale.steps.findLast((step) => value >= step.from)?.colours;
}

export function legend(scale: HeatScale, style: Style): string {
  const swatches = scale.steps.map((step) =>
    step.colours ? style.paint(` ${step.label} `, step.colours) : ` ${step.label} `,
  );
  return `${style.dim(scale.title)}\n${swatches.join(" ")}`;
}
