/** How values are spread. */

export interface Histogram {
  count: number;
  min: number;
  max: number;
  mean: number;
  median: number;
  p90: number;
  /** Equally wide, side by side; the outer ones also hold what lies beyond them. */
  bins: { from: number; to: number; count: number }[];
}

/** As many as can be told apart on a phone. */
const BINS = 24;
/** Share at each end that may lie beyond the outer bins: a single value must not squeeze all others into one bar. */
const BEYOND = 0.005;

/** Null: there are no values. */
export function histogramOf(values: readonly number[]): Histogram | null {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))]!;
  const integers = sorted.every(Number.isInteger);
  const [low, high] = [at(BEYOND), at(1 - BEYOND)];
  return {
    count: sorted.length,
    min: at(0),
    max: at(1),
    mean: sorted.reduce((sum, value) => sum + value / sorted.length, 0),
    median: at(0.5),
    p90: at(0.9),
    bins: filled(sorted, low, integers ? Math.max(1, Math.ceil((high - low + 1) / BINS)) : (high - low) / BINS),
  };
}

function filled(sorted: Float64Array, low: number, width: number): Histogram["bins"] {
  if (!(width > 0)) return [{ from: low, to: low, count: sorted.length }];
  const bins = Array.from({ length: BINS }, (_, i) => ({ from: low + i * width, to: low + (i + 1) * width, count: 0 }));
  for (const value of sorted) bins[Math.max(0, Math.min(BINS - 1, Math.floor((value - low) / width)))]!.count++;
  // Whole numbers often need fewer.
  while (bins.length > 1 && bins.at(-1)!.count === 0) bins.pop();
  return bins;
}
