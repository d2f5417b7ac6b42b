import type { RopeConfig } from "../../model/checkpoint.ts";

/** Rotary tables, grown as positions are first reached. */
export interface RopeTable {
  /** cos and sin of positions 0…(at least) `positions` − 1, each (rows, D/2). */
  upTo(positions: number): { cos: Float32Array; sin: Float32Array; rows: number };
}

/** Growing by half keeps the copies few; the first size serves most texts. */
const FIRST_ROWS = 1024;
const GROWTH = 1.5;

/** Rounds where Transformers does: float32 frequency × position, then cosine and sine in float32. */
export function createRopeTable({ inverseFrequencies }: RopeConfig): RopeTable {
  const half = inverseFrequencies.length;
  let rows = 0;
  let cos = new Float32Array(0);
  let sin = new Float32Array(0);

  function grow(positions: number): void {
    const size = Math.max(positions, FIRST_ROWS, Math.ceil(rows * GROWTH));
    const [wideCos, wideSin] = [new Float32Array(size * half), new Float32Array(size * half)];
    wideCos.set(cos);
    wideSin.set(sin);
    for (let p = rows; p < size; p++) {
      for (let i = 0; i < half; i++) {
        const angle = Math.fround(inverseFrequencies[i]! * p);
        wideCos[p * half + i] = Math.cos(angle);
        wideSin[p * half + i] = Math.sin(angle);
      }
    }
    cos = wideCos;
    sin = wideSin;
    rows = size;
  }

  return {
    upTo(positions) {
      if (positions > rows) grow(positions);
      return { cos, sin, rows };
    },
  };
}
