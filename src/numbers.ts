/** `−1.234`: a real minus sign is as wide as a digit in most fonts, and columns of numbers stay aligned. */
export function fixed(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** `+0.123` / `−0.123` */
export function signed(value: number, digits = 3): string {
  return value < 0 ? fixed(value, digits) : `+${fixed(value, digits)}`;
}

/** A probability as a percentage: two significant digits where it is small, and never rounded up to certainty. */
export function percent(probability: number): string {
  const value = probability * 100;
  if (value >= 99.95) return probability === 1 ? "100 %" : ">99.9 %";
  if (value >= 99) return `${value.toFixed(1)} %`;
  if (value >= 10) return `${value.toFixed(0)} %`;
  if (value >= 1) return `${value.toFixed(1)} %`;
  return value >= 0.01 ? `${value.toFixed(2)} %` : "<0.01 %";
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function bytes(value: number): string {
  let unit = 0;
  let scaled = value;
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${unit === 0 ? scaled : scaled.toFixed(1)} ${UNITS[unit]}`;
}

/** `135 M`, `1.5 B` */
export function count(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} B`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)} k`;
  return String(value);
}

export function seconds(milliseconds: number): string {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}
