import { createFairQueue, type Waiting } from "../fair-queue.ts";
import { tooManyWaiting } from "../overload.ts";
import { cancelled } from "./head-queue.ts";
import { MAX_READING, MAX_SCORING, MAX_SCORING_PER_CLIENT } from "./limits.ts";
import { BLOCK_TOKENS, type PrefixCache } from "./prefix-cache.ts";
import { appendPositions, createPromptKv, type PromptKv } from "./prompt-kv.ts";
import type { ReadOptions } from "./scorer.ts";
import type { Prefilled, Sessions } from "./sessions.ts";

/**
 * Runs given texts through the layers. Texts that begin alike (a system prompt, a question) share the keys and values of
 * their beginning; what is left of several short ones of similar length is read in one run.
 */
export interface Reader {
  /** Hidden states (to − from, hidden) from which tokens from…to−1 are predicted. Throws `queue_full`, `overloaded`, `cancelled`. */
  read(text: Span, options: ReadOptions): Promise<{ rows: Float32Array; cachedTokens: number }>;
  /** One run of at most `budget` tokens (padding included); false when nothing waits. */
  step(budget: number): boolean;
  pending(): number;
  counts(): { computed: number; cached: number };
}

interface Span {
  ids: Int32Array;
  from: number;
  to: number;
}

interface Text extends Waiting {
  ids: Int32Array;
  from: number;
  /** Tokens to be read: the last one wanted is predicted from the one before. */
  end: number;
  options: ReadOptions;
  rows: Float32Array;
  cachedTokens: number;
  /** Keys and values so far, of a text that takes several runs. */
  past: PromptKv | null;
  resolve: (result: { rows: Float32Array; cachedTokens: number }) => void;
  reject: (error: unknown) => void;
}

/** Padding that reading texts of different length in one run may cost. */
const PADDING_SHARE = 0.25;

export function createReader(deps: { sessions: Sessions; prefixes: PrefixCache; wake: () => void }): Reader {
  const { sessions, prefixes, wake } = deps;
  const { hiddenSize } = sessions.config;
  const waiting = createFairQueue<Text>();
  /** Texts that take several runs, in turn. */
  const reading: Text[] = [];
  const counts = { computed: 0, cached: 0 };
  /** Whether the last run was a stretch of a long text: the next one begins another, so neither waits for the other's end. */
  let longBefore = false;

  /** Tokens of its beginning that are known, or could be once another text has been read; what is wanted must be read. */
  const usable = (text: Text): number => Math.min(text.from - 1, text.end);
  const known = (text: Text): number => prefixes.known(text.ids, usable(text), text.options.adapter);

  /** Texts that are read in one run with the first in line: the same known beginning, nearly the same length after it. */
  function nextRun(budget: number): Text[] {
    const [first, ...others] = waiting.inOrder();
    if (!first) return [];
    const beginning = known(first);
    const length = first.end - beginning;
    const run = [first];
    // Whatever of it others could share is to be read once, before them.
    if (usable(first) - beginning < BLOCK_TOKENS) {
      let [longest, total] = [length, length];
      for (const text of others) {
        const own = text.end - beginning;
        const most = Math.max(longest, own);
        const padded = most * (run.length + 1);
        if (padded > budget || padded - total - own > PADDING_SHARE * padded) continue;
        if (text.options.adapter !== first.options.adapter || known(text) !== beginning) continue;
        if (usable(text) - beginning >= BLOCK_TOKENS || !sameStart(first.ids, text.ids, beginning)) continue;
        run.push(text);
        [longest, total] = [most, total + own];
      }
    }
    for (const text of run) waiting.remove(text, text === first);
    return run;
  }

  function begin(run: readonly Text[], budget: number): void {
    const [first] = run as [Text];
    const { adapter } = first.options;
    const cached = known(first);
    const whole = first.end - cached <= budget;
    const past = prefixes.find(first.ids, usable(first), adapter, whole ? cached : first.end);
    for (const text of run) {
      text.cachedTokens = cached;
      counts.cached += cached;
    }
    if (!whole) {
      first.past = past ?? createPromptKv(sessions.config, first.end);
      reading.push(first);
      advance(first, budget);
      return;
    }
    const out = sessions.prefill(
      run.map(({ ids, end }) => ids.subarray(cached, end)),
      past,
      { adapter, hidden: true },
    );
    for (const [b, text] of run.entries()) {
      counts.computed += text.end - cached;
      takeRows(text, out, b, cached, text.end - cached);
      if (b === 0) keep(text, cached, text.end - cached, out);
      text.resolve({ rows: text.rows, cachedTokens: cached });
    }
  }

  /** The next stretch of a text that takes several runs. */
  function advance(text: Text, budget: number): void {
    const past = text.past!;
    const start = past.length;
    const count = Math.min(budget, text.end - start);
    const wanted = start + count > text.from - 1;
    const chunk = text.ids.subarray(start, start + count);
    const out = sessions.prefill([chunk], past, { adapter: text.options.adapter, hidden: wanted });
    counts.computed += count;
    if (wanted) takeRows(text, out, 0, start, count);
    keep(text, start, count, out);
    if (start + count === text.end) {
      reading.splice(reading.indexOf(text), 1);
      text.resolve({ rows: text.rows, cachedTokens: text.cachedTokens });
    } else appendPositions(past, out.keys, out.values, 0, count);
  }

  /** Copies the wanted ones of the hidden rows of positions start…start+count−1. */
  function takeRows(text: Text, { hidden, stride }: Prefilled, b: number, start: number, count: number): void {
    const skipped = Math.max(0, text.from - 1 - start);
    if (skipped >= count) return;
    const at = b * stride;
    const rows = hidden.subarray((at + skipped) * hiddenSize, (at + count) * hiddenSize);
    text.rows.set(rows, (start + skipped - (text.from - 1)) * hiddenSize);
  }

  /** Beginnings are kept, not what is scored: others will begin alike, and hardly anybody sends the same text again. */
  function keep(text: Text, from: number, count: number, { keys, values }: Prefilled): void {
    prefixes.keep(text.ids, Math.min(usable(text), from + count), text.options.adapter, { from, keys, values });
  }

  function dropAborted(): void {
    for (const text of [...waiting.inOrder(), ...reading]) {
      if (!text.options.signal.aborted) continue;
      waiting.remove(text, false);
      if (reading.includes(text)) reading.splice(reading.indexOf(text), 1);
      text.reject(cancelled());
    }
  }

  return {
    read({ ids, from, to }, options) {
      const { client, priority } = options;
      if (waiting.countOf(client) >= MAX_SCORING_PER_CLIENT) return Promise.reject(tooManyWaiting("client"));
      if (waiting.size >= MAX_SCORING) return Promise.reject(tooManyWaiting("server"));
      const rows = new Float32Array((to - from) * hiddenSize);
      if (to === from) return Promise.resolve({ rows, cachedTokens: 0 });
      return new Promise((resolve, reject) => {
        const state = { options, rows, cachedTokens: 0, past: null, resolve, reject };
        waiting.push({ client, priority, ids, from, end: to - 1, ...state });
        wake();
      });
    },
    step(budget) {
      dropAborted();
      const long = reading.shift();
      if (long) reading.push(long);
      const fresh = reading.length < MAX_READING && waiting.size > 0;
      if (!long && !fresh) return false;
      longBefore = long !== undefined && !(fresh && longBefore);
      const run = longBefore ? [long!] : nextRun(budget);
      try {
        if (longBefore) advance(long!, budget);
        else begin(run, budget);
      } catch (error) {
        for (const text of run) {
          if (reading.includes(text)) reading.splice(reading.indexOf(text), 1);
          text.reject(error);
        }
      }
      return true;
    },
    pending: () => waiting.size + reading.length,
    counts: () => counts,
  };
}

function sameStart(a: Int32Array, b: Int32Array, count: number): boolean {
  for (let i = 0; i < count; i++) if (a[i] !== b[i]) return false;
  return true;
}
