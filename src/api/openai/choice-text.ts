import { createIncrementalDecoder } from "../../text/incremental.ts";
import { createStopMatcher } from "../../text/stop-matcher.ts";
import type { TextModel } from "../../text/text.ts";

export interface StopRules {
  /** Strings that end the text. */
  stops: readonly string[];
  /** Ids that end it: the model's ends of turn, and `stop_token_ids`. */
  stopIds: ReadonlySet<number>;
  /** Those of `stopIds` the caller named: reported as `stop_reason`. */
  callerStopIds: ReadonlySet<number>;
  /** Keep what ended the text in it. */
  includeStop: boolean;
  /** Special tokens are left out of the text. */
  skipSpecial: boolean;
}

export interface TextStep {
  /** What may be shown now: never half a character, never part of what may become a stop string. */
  text: string;
  stopped: boolean;
}

/** The text of one choice, token by token. Deterministic: the engine's `shouldStop` and the reader each keep one. */
export interface ChoiceText {
  push(id: number): TextStep;
  /** What was held back, when the choice ended without a stop. */
  flush(): string;
  /** The stop string or the caller's stop id that ended it; null for an end of turn or none (vLLM's `stop_reason`). */
  stopReason(): string | number | null;
}

export function createChoiceText(model: TextModel, rules: StopRules): ChoiceText {
  const decoder = createIncrementalDecoder(model, { special: !rules.skipSpecial });
  const matcher = createStopMatcher(rules.stops);
  let stopped = false;
  let reason: string | number | null = null;

  function match(text: string): TextStep {
    const { emit, stopped: matched, matched: stop } = matcher.push(text);
    if (!matched) return { text: emit, stopped: false };
    stopped = true;
    reason = stop ?? null;
    return { text: rules.includeStop ? emit + (stop ?? "") : emit, stopped: true };
  }

  function flush(): string {
    if (stopped) return "";
    const { text } = match(decoder.flush());
    return stopped ? text : text + matcher.flush();
  }

  function push(id: number): TextStep {
    if (stopped) return { text: "", stopped };
    if (!rules.stopIds.has(id)) return match(decoder.push(id));
    // Only the stopping token itself is left out; what the decoder and the matcher still hold belongs to the text.
    const last = rules.includeStop ? match(decoder.push(id)).text : "";
    const text = last + flush();
    if (!stopped && rules.callerStopIds.has(id)) reason = id;
    stopped = true;
    return { text, stopped };
  }

  return { push, flush, stopReason: () => reason };
}
