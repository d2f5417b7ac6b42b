/**
 * Near-duplicates by MinHash and banding (Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3).
 *
 * A text is the set of its shingles, runs of words. Two texts are alike by the share of shingles they have in common
 * (Jaccard). 128 hash functions each keep the smallest hash of a set, and two sets agree in one of them with a probability
 * that equals their likeness. A text is compared with those only that agree with it in all hashes of one band.
 *
 * Sequential and deterministic: the same texts in the same order give the same answers, on every machine.
 */
import { fail } from "../errors.ts";
import { hashedRuns, mix, wordsOf } from "./words.ts";

/** Standard error of a likeness of 0.8: sqrt(0.8 · 0.2 / 128) = 0.035. */
export const MINHASHES = 128;
/** Of two texts that are exactly as alike as the threshold one pair in a hundred is not even compared. */
const MISSED_SHARE = 0.01;
/** Each costs 4 to 10 bytes a text. */
const MAX_BANDS = 20;
/**
 * Texts of one template agree in whole bands by the thousands; this many of each are compared and held, so that the work for
 * a text is bounded. In such a set a near-duplicate may be overlooked.
 */
const MAX_COMPARED_PER_BAND = 64;
/** As usual for text (five words), and likeness from which others speak of near-duplicates. */
export const DEFAULT_SHINGLE_WORDS = 5;
export const DEFAULT_NEAR_THRESHOLD = 0.8;
/** Less alike texts are no duplicates, and bands could not tell them from any others. */
export const MIN_NEAR_THRESHOLD = 0.5;
/** Any number would do; another one gives other errors of the estimate. */
const DEFAULT_SEED = 1;

export interface NearDuplicateOptions {
  /** Likeness from which two texts count as the same, 0.5 to 1. */
  threshold?: number | undefined;
  /** Words of a shingle. */
  shingleWords?: number | undefined;
  seed?: number | undefined;
}

export interface NearDuplicate {
  /** Of the text that came earlier: how many were added or stored before it. */
  index: number;
  /** The estimated likeness, 0 to 1. */
  similarity: number;
}

export interface NearDuplicates {
  /** The index of an earlier text that is nearly this one; undefined: there is none, and it is kept for those that follow. */
  add(text: string): number | undefined;
  /** The same with the likeness. */
  take(text: string): NearDuplicate | undefined;
  /** The nearest kept text, if any is near enough; nothing is kept. */
  find(text: string): NearDuplicate | undefined;
  /** Kept, whatever it is near to. */
  store(text: string): void;
}

/** Holds some 300 bytes a kept text (of a text that is nearly another one nothing). */
export function createNearDuplicates(options: NearDuplicateOptions = {}): NearDuplicates {
  const { threshold = DEFAULT_NEAR_THRESHOLD, shingleWords = DEFAULT_SHINGLE_WORDS, seed = DEFAULT_SEED } = options;
  if (!(threshold >= MIN_NEAR_THRESHOLD && threshold <= 1)) {
    throw fail("invalid_value", `a likeness of ${threshold} is none of ${MIN_NEAR_THRESHOLD} to 1`, { param: "near" });
  }
  const sign = createSigner(seed);
  const { bands, width } = bandsFor(threshold);
  const kept = createSignatures();
  const tables = Array.from({ length: bands }, () => createTable());
  /** Of each kept text: how many were added before it. */
  const indexes = createGrowing();
  let added = 0;

  const signatureOf = (text: string): Uint8Array => sign(hashedRuns(wordsOf(text), shingleWords));

  function nearest(signature: Uint8Array): NearDuplicate | undefined {
    let best: { place: number; equal: number } | undefined;
    for (const [band, table] of tables.entries()) {
      table.visit(hashBand(signature, band, width), (place) => {
        if (!kept.sameBand(place, signature, band * width, width)) return false;
        const equal = kept.equal(place, signature);
        // Of equally near ones the earliest.
        if (best === undefined || equal > best.equal || (equal === best.equal && place < best.place))
          best = { place, equal };
        return true;
      });
    }
    const similarity = best === undefined ? 0 : likeness(best.equal);
    return best !== undefined && similarity >= threshold ? { index: indexes.at(best.place), similarity } : undefined;
  }

  function keep(signature: Uint8Array): void {
    const place = kept.push(signature);
    indexes.push(added++);
    for (const [band, table] of tables.entries()) {
      const same = (other: number): boolean => kept.sameBand(other, signature, band * width, width);
      table.insert(hashBand(signature, band, width), place, same, (other) => hashBand(kept.at(other), band, width));
    }
  }

  function take(text: string): NearDuplicate | undefined {
    const signature = signatureOf(text);
    const found = nearest(signature);
    if (found === undefined) keep(signature);
    else added++;
    return found;
  }

  return {
    take,
    add: (text) => take(text)?.index,
    find: (text) => nearest(signatureOf(text)),
    store: (text) => keep(signatureOf(text)),
  };
}

/**
 * As wide as bands can be (which spares comparisons) while `MAX_BANDS` of them miss no more than `MISSED_SHARE` of the pairs
 * at the threshold: b bands of r hashes miss (1 - t^r)^b of them.
 */
export function bandsFor(threshold: number): { bands: number; width: number } {
  let best = { bands: MAX_BANDS, width: 1 };
  for (let width = 1; width <= MINHASHES; width++) {
    const bands = Math.max(1, Math.ceil(Math.log(MISSED_SHARE) / Math.log1p(-(threshold ** width))));
    if (bands > MAX_BANDS || bands * width > MINHASHES) continue;
    best = { bands, width };
  }
  return best;
}

/** Of each smallest hash 8 bits are kept, so that one in 256 agrees by chance, which is taken out again. */
function likeness(equal: number): number {
  return Math.max(0, (equal / MINHASHES - 1 / 256) / (255 / 256));
}

/** (shingles) → (128,) bytes. The buffer is the same for every call. */
function createSigner(seed: number): (shingles: Uint32Array) => Uint8Array {
  const factors = new Int32Array(MINHASHES);
  const terms = new Int32Array(MINHASHES);
  for (let i = 0; i < MINHASHES; i++) {
    factors[i] = mix(mix(seed) + 2 * i) | 1;
    terms[i] = mix(mix(seed) + 2 * i + 1);
  }
  const smallest = new Uint32Array(MINHASHES);
  const signature = new Uint8Array(MINHASHES);
  return (shingles) => {
    smallest.fill(0xffffffff);
    for (const shingle of shingles) {
      for (let i = 0; i < MINHASHES; i++) {
        const hash = (Math.imul(shingle, factors[i]!) + terms[i]!) >>> 0;
        if (hash < smallest[i]!) smallest[i] = hash;
      }
    }
    for (let i = 0; i < MINHASHES; i++) signature[i] = mix(smallest[i]!);
    return signature;
  };
}

function hashBand(signature: Uint8Array, band: number, width: number): number {
  let hash = band;
  for (let i = band * width; i < (band + 1) * width; i++) hash = mix(Math.imul(hash, 31) + signature[i]!);
  return hash;
}

/** Signatures in pieces, so that growing copies nothing. */
const PIECE_SIGNATURES = 65_536;

function createSignatures() {
  const pieces: Uint8Array[] = [];
  let count = 0;
  const pieceOf = (place: number): Uint8Array => pieces[Math.floor(place / PIECE_SIGNATURES)]!;
  const offsetOf = (place: number): number => (place % PIECE_SIGNATURES) * MINHASHES;
  return {
    push(signature: Uint8Array): number {
      if (count % PIECE_SIGNATURES === 0) pieces.push(new Uint8Array(PIECE_SIGNATURES * MINHASHES));
      pieceOf(count).set(signature, offsetOf(count));
      return count++;
    },
    at: (place: number): Uint8Array => pieceOf(place).subarray(offsetOf(place), offsetOf(place) + MINHASHES),
    sameBand(place: number, signature: Uint8Array, from: number, width: number): boolean {
      const piece = pieceOf(place);
      const offset = offsetOf(place);
      for (let i = from; i < from + width; i++) if (piece[offset + i] !== signature[i]) return false;
      return true;
    },
    equal(place: number, signature: Uint8Array): number {
      const piece = pieceOf(place);
      const offset = offsetOf(place);
      let equal = 0;
      for (let i = 0; i < MINHASHES; i++) if (piece[offset + i] === signature[i]) equal++;
      return equal;
    },
  };
}

function createGrowing() {
  let values = new Uint32Array(1_024);
  let count = 0;
  return {
    push(value: number): void {
      if (count === values.length) {
        const grown = new Uint32Array(2 * count);
        grown.set(values);
        values = grown;
      }
      values[count++] = value;
    },
    at: (i: number): number => values[i]!,
  };
}

/** Places of signatures by the hash of one band: open addressing, the keys themselves stand in the signatures. */
function createTable() {
  let slots = new Uint32Array(1_024);
  let filled = 0;

  function put(hash: number, place: number): void {
    let at = hash & (slots.length - 1);
    while (slots[at] !== 0) at = (at + 1) & (slots.length - 1);
    slots[at] = place + 1;
  }

  /** Until `MAX_COMPARED_PER_BAND` were the same, or there are no more. */
  function visit(hash: number, same: (place: number) => boolean): number {
    let found = 0;
    for (let at = hash & (slots.length - 1); slots[at] !== 0; at = (at + 1) & (slots.length - 1)) {
      if (same(slots[at]! - 1) && ++found === MAX_COMPARED_PER_BAND) break;
    }
    return found;
  }

  return {
    visit,
    insert(hash: number, place: number, same: (other: number) => boolean, hashOf: (other: number) => number): void {
      if (visit(hash, same) === MAX_COMPARED_PER_BAND) return;
      if (4 * (filled + 1) > 3 * slots.length) {
        const old = slots;
        slots = new Uint32Array(2 * old.length);
        for (const slot of old) if (slot !== 0) put(hashOf(slot - 1), slot - 1);
      }
      put(hash, place);
      filled++;
    },
  };
}
