import type { Generation } from "./generation.ts";
import { BLOCK_TOKENS, type PrefixCache } from "./prefix-cache.ts";
import { appendPositions, createPromptKv } from "./prompt-kv.ts";
import type { Sessions } from "./sessions.ts";

/** Computes the prompts of sample requests, a stretch at a time, beginning after what is known of them. */
export interface Prefill {
  /** Computes up to `budget` tokens more; true when the prompt is complete. */
  advance(generation: Generation, budget: number): boolean;
  /** Whether `other`, if it waits, will find a block that is being computed for `one`. */
  shares(one: Generation, other: Generation): boolean;
  /** Prompt tokens so far. */
  counts(): { computed: number; cached: number };
}

export function createPrefill({ sessions, prefixes }: { sessions: Sessions; prefixes: PrefixCache }): Prefill {
  const { hiddenSize } = sessions.config;
  const counts = { computed: 0, cached: 0 };

  function open(generation: Generation): NonNullable<Generation["prompt"]> {
    const { promptIds } = generation.message;
    // The last token is always computed: the first sample needs what the model makes of it.
    const found = prefixes.find(promptIds, promptIds.length - 1, generation.adapter, promptIds.length);
    const prompt = found ?? createPromptKv(sessions.config, promptIds.length);
    counts.cached += prompt.length;
    generation.events.push({ type: "prompt", cachedTokens: prompt.length });
    return prompt;
  }

  return {
    advance(generation, budget) {
      const { promptIds } = generation.message;
      generation.prompt ??= open(generation);
      const { prompt, adapter } = generation;
      const from = prompt.length;
      const count = Math.min(budget, promptIds.length - from);
      const isLast = from + count === promptIds.length;
      const chunk = promptIds.subarray(from, from + count);
      const { hidden, keys, values } = sessions.prefill([chunk], prompt, { adapter, hidden: isLast });
      appendPositions(prompt, keys, values, 0, count);
      counts.computed += count;
      prefixes.keep(promptIds, from + count, adapter, { from: 0, keys: prompt.keys, values: prompt.values });
      if (isLast) generation.last = hidden.slice((count - 1) * hiddenSize, count * hiddenSize);
      return isLast;
    },
    shares(one, other) {
      if (one.adapter !== other.adapter) return false;
      const [a, b] = [one.message.promptIds, other.message.promptIds];
      const known = prefixes.known(b, b.length - 1, other.adapter);
      const end = known + BLOCK_TOKENS;
      if (end > Math.min(a.length, b.length - 1)) return false;
      for (let i = 0; i < end; i++) if (a[i] !== b[i]) return false;
      return true;
    },
    counts: () => counts,
  };
}
