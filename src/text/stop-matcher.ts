/** Looks for stop strings in a stream of text and holds back only what may become one. */
export interface StopMatcher {
  /** Text that may be sent. After a stop nothing more is emitted. */
  push(text: string): StopResult;
  /** The stream ended without a stop: what was held back. */
  flush(): string;
}

export interface StopResult {
  /** Exactly the text before the stop, over all calls; append `matched` to include the stop string. */
  emit: string;
  stopped: boolean;
  /** The stop string. */
  matched?: string;
}

/**
 * The stop that is complete first wins; of several that end together, the longest. The outcome does not depend on how
 * the text is cut into pushes. One Knuth–Morris–Pratt automaton per stop: time is linear in text × stops. Empty stops
 * are ignored.
 */
export function createStopMatcher(stops: readonly string[]): StopMatcher {
  const patterns = [...new Set(stops)].filter((stop) => stop.length > 0).sort((a, b) => b.length - a.length);
  const failures = patterns.map(failureFunction);
  /** How much of each pattern the text seen so far ends with. */
  const states = patterns.map(() => 0);
  let held = "";
  let stopped = false;

  function push(text: string): StopResult {
    if (stopped) return { emit: "", stopped };
    const seen = held + text;
    for (let i = held.length; i < seen.length; i++) {
      const matched = step(seen.charCodeAt(i));
      if (matched === undefined) continue;
      stopped = true;
      held = "";
      return { emit: seen.slice(0, i + 1 - matched.length), stopped, matched };
    }
    const keep = Math.max(0, ...states);
    held = seen.slice(seen.length - keep);
    return { emit: seen.slice(0, seen.length - keep), stopped };
  }

  /** Advances every automaton by one UTF-16 unit; patterns are sorted, so the first complete one is the longest. */
  function step(unit: number): string | undefined {
    let complete: string | undefined;
    patterns.forEach((pattern, p) => {
      const failure = failures[p] as Int32Array;
      let state = states[p] as number;
      while (state > 0 && pattern.charCodeAt(state) !== unit) state = failure[state - 1] as number;
      if (pattern.charCodeAt(state) === unit) state++;
      states[p] = state;
      if (state === pattern.length) complete ??= pattern;
    });
    return complete;
  }

  return {
    push,
    flush() {
      const rest = held;
      held = "";
      states.fill(0);
      return rest;
    },
  };
}

/** failure[i]: length of the longest proper prefix of pattern[0…i] that is also its suffix. */
function failureFunction(pattern: string): Int32Array {
  const failure = new Int32Array(pattern.length);
  for (let i = 1, k = 0; i < pattern.length; i++) {
    while (k > 0 && pattern.charCodeAt(i) !== pattern.charCodeAt(k)) k = failure[k - 1] as number;
    if (pattern.charCodeAt(i) === pattern.charCodeAt(k)) k++;
    failure[i] = k;
  }
  return failure;
}
