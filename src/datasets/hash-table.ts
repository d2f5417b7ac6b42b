/** Hashes of 16 bytes → when they were first seen, in 30 to 60 bytes each: a Set of texts takes three times that. */

const WORDS = 4;
const FIRST_SLOTS = 1_024;

export interface HashTable {
  /** How many different hashes were added. */
  readonly size: number;
  /** `value` of the first addition of this hash; undefined: this is the first. Values are below 2^32 - 1. */
  add(hash: Buffer, value: number): number | undefined;
}

export function createHashTable(): HashTable {
  let keys = new Uint32Array(FIRST_SLOTS * WORDS);
  /** Value + 1; 0: the slot is free. */
  let values = new Uint32Array(FIRST_SLOTS);
  let size = 0;

  function slotOf(words: ArrayLike<number>, from: number): number {
    const mask = values.length - 1;
    for (let slot = words[from]! & mask; ; slot = (slot + 1) & mask) {
      if (values[slot] === 0) return slot;
      let same = true;
      for (let i = 0; i < WORDS; i++) same &&= keys[slot * WORDS + i] === words[from + i];
      if (same) return slot;
    }
  }
  function put(slot: number, words: ArrayLike<number>, from: number, value: number): void {
    for (let i = 0; i < WORDS; i++) keys[slot * WORDS + i] = words[from + i]!;
    values[slot] = value;
  }
  function grow(): void {
    const [oldKeys, oldValues] = [keys, values];
    keys = new Uint32Array(2 * oldKeys.length);
    values = new Uint32Array(2 * oldValues.length);
    for (let i = 0; i < oldValues.length; i++) {
      if (oldValues[i] !== 0) put(slotOf(oldKeys, i * WORDS), oldKeys, i * WORDS, oldValues[i]!);
    }
  }

  return {
    get size() {
      return size;
    },
    add(hash, value) {
      const words = [hash.readUInt32LE(0), hash.readUInt32LE(4), hash.readUInt32LE(8), hash.readUInt32LE(12)];
      const slot = slotOf(words, 0);
      if (values[slot] !== 0) return values[slot]! - 1;
      put(slot, words, 0, value + 1);
      size++;
      if (4 * size > 3 * values.length) grow();
      return undefined;
    },
  };
}
