/** Every draw of a training run is named by what it is for, so that a run that is taken up again draws the same. */

/** A seed of 32 bits from the run's own and what it is for (step, question, …): mixed as SplitMix64 does, in two halves. */
export function derivedSeed(seed: number, ...purpose: readonly number[]): number {
  let state = seed >>> 0;
  for (const part of [Math.floor(seed / 2 ** 32), ...purpose]) state = mix((state ^ (part >>> 0)) + 0x9e3779b9);
  return state;
}

function mix(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad) >>> 0;
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97) >>> 0;
  return (x ^ (x >>> 15)) >>> 0;
}

/** Numbers 0…length − 1 in an order that the seed decides (Fisher–Yates). */
export function shuffled(length: number, seed: number): number[] {
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor((derivedSeed(seed, i) / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** The rows of a step: epochs of `rows` rows, each in an order of its own, cut into batches that run over their ends. */
export function rowsOfStep(step: number, batch: number, rows: number, seed: number): number[] {
  const orders = new Map<number, number[]>();
  return Array.from({ length: batch }, (_, i) => {
    const at = step * batch + i;
    const epoch = Math.floor(at / rows);
    const order = orders.get(epoch) ?? shuffled(rows, derivedSeed(seed, epoch));
    orders.set(epoch, order);
    return order[at % rows]!;
  });
}
