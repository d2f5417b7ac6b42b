/** What can be said from a sample of questions about all questions of their kind. Standard formulas, each with its source. */

/** Two-sided 95 %. */
const Z = 1.959963984540054;
export const LEVEL = 0.95;

export interface Interval {
  low: number;
  high: number;
  level: typeof LEVEL;
  /** `wilson`: one sample a question; `wilson_effective`: several, as many questions as their agreement leaves. */
  method: "wilson" | "wilson_effective";
}

/** (N) share of right samples per question, and how many samples each had. */
export interface Shares {
  shares: readonly number[];
  samples: number;
}

export const meanOf = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;

/**
 * Of an accuracy. One sample a question: Wilson (1927). Several samples of one question resemble each other, so questions are what is
 * counted (Miller 2024, arXiv 2411.00640, section 2.2): Wilson with the effective sample size p(1 − p)/se², se from the questions'
 * means (Dean and Pagano 2015). It is at least N − 1, and N where all questions agree, so that the interval never shrinks to a point.
 */
export function accuracyInterval({ shares, samples }: Shares): Interval | null {
  const n = shares.length;
  if (n === 0) return null;
  const p = meanOf(shares);
  if (samples === 1) return { ...wilson(p, n), level: LEVEL, method: "wilson" };
  return { ...wilson(p, effectiveSize({ shares, samples }, p)), level: LEVEL, method: "wilson_effective" };
}

function effectiveSize({ shares, samples }: Shares, p: number): number {
  const n = shares.length;
  const spread = p * (1 - p);
  if (n < 2 || spread === 0) return n;
  const se2 = shares.reduce((sum, share) => sum + (share - p) ** 2, 0) / (n - 1) / n;
  return se2 === 0 ? n * samples : Math.min(n * samples, spread / se2);
}

function wilson(p: number, n: number): { low: number; high: number } {
  const z2 = Z * Z;
  const centre = (p + z2 / (2 * n)) / (1 + z2 / n);
  const half = (Z / (1 + z2 / n)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
  // At the ends the formula gives 0 and 1 but for rounding.
  return { low: p === 0 ? 0 : Math.max(0, centre - half), high: p === 1 ? 1 : Math.min(1, centre + half) };
}

/** 1 − C(n − c, k) / C(n, k): the unbiased estimate of Chen et al. 2021 (arXiv 2107.03374), as a product that never overflows. */
export function passAtK(n: number, correct: number, k: number): number {
  if (n - correct < k) return 1;
  let none = 1;
  for (let i = n - correct + 1; i <= n; i++) none *= 1 - k / i;
  return 1 - none;
}

/** Exact two-sided p of McNemar's test: of b + c questions on which the two disagree, as uneven a split by chance alone. */
export function mcnemar(b: number, c: number): number {
  const n = b + c;
  let term = -n * Math.LN2;
  let tail = 0;
  // Logarithms: 2^−n underflows beyond a thousand.
  for (let i = 0; i <= Math.min(b, c); i++) {
    tail += Math.exp(term);
    term += Math.log((n - i) / (i + 1));
  }
  return Math.min(1, 2 * tail);
}

/**
 * Of the difference second − first of two accuracies on the same questions: Newcombe's square-and-add interval for paired
 * proportions (1998, method 10), for several samples with the intervals above (Zou and Donner 2008).
 */
export function differenceInterval(first: Shares, second: Shares): { low: number; high: number } | null {
  const [a, b] = [accuracyInterval(first), accuracyInterval(second)];
  if (!a || !b) return null;
  const [p, q] = [meanOf(first.shares), meanOf(second.shares)];
  const r = correlation(first.shares, second.shares);
  const below = (q - b.low) ** 2 - 2 * r * (q - b.low) * (a.high - p) + (a.high - p) ** 2;
  const above = (b.high - q) ** 2 - 2 * r * (b.high - q) * (p - a.low) + (p - a.low) ** 2;
  const difference = q - p;
  return {
    low: Math.max(-1, difference - Math.sqrt(Math.max(0, below))),
    high: Math.min(1, difference + Math.sqrt(Math.max(0, above))),
  };
}

/** Pearson's, of which Newcombe takes half a row where it is positive; 0 where one side does not vary. */
function correlation(a: readonly number[], b: readonly number[]): number {
  const [p, q] = [meanOf(a), meanOf(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (const [i, x] of a.entries()) {
    const y = b[i]!;
    ab += (x - p) * (y - q);
    aa += (x - p) ** 2;
    bb += (y - q) ** 2;
  }
  if (aa === 0 || bb === 0) return 0;
  return (ab > 0 ? Math.max(0, ab - 0.5) : ab) / Math.sqrt(aa * bb);
}
