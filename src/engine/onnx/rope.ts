import type { RopeConfig } from "../../model/checkpoint.ts";

/** Rotary tables, grown as positions are first reached. */
export interface RopeTable {
  /** cos and sin rows of these positions, each (N, D/2). */
  rows(positions: Int32Array): { cos: Float32Array; sin: Float32Array };
}

/** Rounds where Transformers does: float32 frequency × position, then cosine and sine in float32. */
export function createRopeTable({ inverseFrequencies }: RopeConfig): RopeTable {
  const half = inverseFrequencies.length;
  let cos = new Float32Array(0);
  let sin = new Float32Array(0);

  function grow(positions: number): void {
    const from = cos.length / half;
    const size = Math.max(positions, from * 2);
    const [wideCos, wideSin] = [new Float32Array(size * half), new Float32Array(size * half)];
    wideCos.set(cos);
    wideSin.set(sin);
    for (let p = from; p < size; p++) {
      for (let i = 0; i < half; i++) {
        const angle = Math.fround(inverseFrequencies[i]! * p);
        wideCos[p * half + i] = Math.cos(angle);
        wideSin[p * half + i] = Math.sin(angle);
      }
    }
    cos = wideCos;
    sin = wideSin;
  }

  return {
    rows(positions) {
      const top = positions.reduce((a, b) => Math.max(a, b), 0) + 1;
      if (top * half > cos.length) grow(top);
      const out = { cos: new Float32Array(positions.length * half), sin: new Float32Array(positions.length * half) };
      for (let n = 0; n < positions.length; n++) {
        const at = positions[n]! * half;
        for (let i = 0; i < half; i++) {
          out.cos[n * half + i] = cos[at + i]!;
          out.sin[n * half + i] = sin[at + i]!;
        }
      }
      return out;
    },
  };
}
