/** Numbers as a report writes them. */
import { fixed } from "../numbers.ts";

/** Three digits that say something: `12,345`, `12.3`, `−0.0123`, `1.2e-9`. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return whole(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(1).replace(/^-/, "−");
  if (size >= 1_000) return whole(Math.round(value));
  return fixed(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

export const whole = (value: number): string => value.toLocaleString("en-US").replace(/^-/, "−");

/** Of a share. */
export const points = (share: number): string => `${fixed(100 * share, 1)} %`;

/** Of a difference of shares, in percentage points. */
export const signedPoints = (difference: number): string => `${difference > 0 ? "+" : ""}${fixed(100 * difference, 1)}`;

export const pValue = (p: number): string => (p < 0.001 ? "< 0.001" : fixed(p, 3));
