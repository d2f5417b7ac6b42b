import type { CacheShape } from "./kv-rows.ts";
import { appendPositions, createPromptKv, type PromptKv, rowSize } from "./prompt-kv.ts";

/**
 * Keys and values of prompts seen before, in blocks of a few tokens that form a tree: texts with the same beginning share
 * its blocks. What has not been used for longest goes first, longer texts before their beginnings.
 */
export interface PrefixCache {
  /** The longest known beginning of `ids`, at most `limit` tokens, copied into a new array of room for `capacity`; null if none. */
  find(ids: Int32Array, limit: number, adapter: object | null, capacity: number): PromptKv | null;
  /** Tokens `find` would find. */
  known(ids: Int32Array, limit: number, adapter: object | null): number;
  /**
   * Keeps the first `count` tokens of a text whose positions from `from` on lie in `keys`, `values` (per layer, positions
   * outermost); earlier ones must be known already.
   */
  keep(ids: Int32Array, count: number, adapter: object | null, rows: KeptRows): void;
  bytes(): number;
}

export interface KeptRows {
  from: number;
  keys: readonly Float32Array[];
  values: readonly Float32Array[];
}

/** Tokens per block: less is computed twice with small ones, less is administered with large ones. */
export const BLOCK_TOKENS = 16;

interface Block {
  key: string;
  /** Where it stands among those that continue the same text. */
  siblings: Map<string, Block>;
  children: Map<string, Block>;
  /** Per layer keys, then values: (layers · 2, BLOCK_TOKENS, kvHeads, D) */
  data: Float32Array;
}

export function createPrefixCache(shape: CacheShape, budgetBytes: number): PrefixCache {
  const size = rowSize(shape) * BLOCK_TOKENS;
  const blockBytes = shape.layers * 2 * size * Float32Array.BYTES_PER_ELEMENT;
  /** Weights that an adapter changes are other weights: each has a tree of its own. */
  const roots = new WeakMap<object, Map<string, Block>>();
  const base = {};
  /** In order of use. A block is touched after those that continue it, so the first is always one that nothing continues. */
  const used = new Set<Block>();

  function rootOf(adapter: object | null): Map<string, Block> {
    const key = adapter ?? base;
    const root = roots.get(key) ?? new Map<string, Block>();
    roots.set(key, root);
    return root;
  }

  function path(ids: Int32Array, limit: number, adapter: object | null): Block[] {
    const found: Block[] = [];
    let children = rootOf(adapter);
    for (let at = 0; at + BLOCK_TOKENS <= limit; at += BLOCK_TOKENS) {
      const block = children.get(keyOf(ids, at));
      if (!block) break;
      found.push(block);
      children = block.children;
    }
    touch(found);
    return found;
  }

  /** From the last to the first, so that a beginning always counts as used later than what continues it. */
  function touch(blocks: readonly Block[]): void {
    for (const block of [...blocks].reverse()) {
      used.delete(block);
      used.add(block);
    }
  }

  function evictOldest(): void {
    const [oldest] = used as Set<Block | undefined>;
    if (!oldest) return;
    used.delete(oldest);
    oldest.siblings.delete(oldest.key);
  }

  return {
    known: (ids, limit, adapter) => path(ids, limit, adapter).length * BLOCK_TOKENS,
    find(ids, limit, adapter, capacity) {
      const blocks = path(ids, limit, adapter);
      if (blocks.length === 0) return null;
      const kv = createPromptKv(shape, capacity);
      for (const { data } of blocks) {
        const layer = (l: number, side: number): Float32Array =>
          data.subarray((2 * l + side) * size, (2 * l + side + 1) * size);
        const layers = [...kv.keys.keys()];
        appendPositions(
          kv,
          layers.map((l) => layer(l, 0)),
          layers.map((l) => layer(l, 1)),
          0,
          BLOCK_TOKENS,
        );
      }
      return kv;
    },
    keep(ids, count, adapter, rows) {
      let siblings = rootOf(adapter);
      const blocks: Block[] = [];
      for (let at = 0; at + BLOCK_TOKENS <= count; at += BLOCK_TOKENS) {
        const key = keyOf(ids, at);
        const known = siblings.get(key);
        // The beginning has left meanwhile: what follows could not be found without it.
        if (!known && at < rows.from) break;
        const block = known ?? { key, siblings, children: new Map(), data: copied(rows, at) };
        siblings.set(key, block);
        blocks.push(block);
        siblings = block.children;
      }
      touch(blocks);
      while (used.size * blockBytes > budgetBytes) evictOldest();
    },
    bytes: () => used.size * blockBytes,
  };

  function copied({ from, keys, values }: KeptRows, at: number): Float32Array {
    const data = new Float32Array(shape.layers * 2 * size);
    const start = (at - from) * rowSize(shape);
    for (let l = 0; l < shape.layers; l++) {
      data.set(keys[l]!.subarray(start, start + size), 2 * l * size);
      data.set(values[l]!.subarray(start, start + size), (2 * l + 1) * size);
    }
    return data;
  }
}

const keyOf = (ids: Int32Array, at: number): string => ids.subarray(at, at + BLOCK_TOKENS).join(" ");
