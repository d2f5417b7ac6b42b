import { createIncrementalDecoder } from "./incremental.ts";
import { createStopMatcher } from "./stop-matcher.ts";
import type { TextModel } from "./text.ts";

/** One explanation while it is being written: ids in, text out up to the closing tag. */
export interface Writing {
  /** True when the closing tag is complete. Called by the engine for every token, in order. */
  push(id: number): boolean;
  /** Text that may be shown since the last call: never half a character, never part of the closing tag. */
  take(): string;
  /** No more tokens: what was held back in case the tag went on is text after all. */
  end(): void;
  readonly text: string;
  /** The closing tag was written. */
  readonly closed: boolean;
  readonly ids: readonly number[];
}

export function createWriting(text: TextModel, close: string): Writing {
  const decoder = createIncrementalDecoder(text);
  const matcher = createStopMatcher([close]);
  const ids: number[] = [];
  let whole = "";
  let shown = 0;
  let closed = false;
  return {
    push(id) {
      if (closed) return true;
      ids.push(id);
      const step = matcher.push(decoder.push(id));
      whole += step.emit;
      closed = step.stopped;
      return closed;
    },
    take() {
      const delta = whole.slice(shown);
      shown = whole.length;
      return delta;
    },
    end() {
      if (closed) return;
      const step = matcher.push(decoder.flush());
      whole += step.emit;
      closed = step.stopped;
      if (!closed) whole += matcher.flush();
    },
    get text() {
      return whole;
    },
    get closed() {
      return closed;
    },
    ids,
  };
}
