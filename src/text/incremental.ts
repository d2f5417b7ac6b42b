import type { TextModel } from "./text.ts";

/** Ids to text, piece by piece; the pieces joined are what decoding all ids at once gives. */
export interface IncrementalDecoder {
  /** The text that this id completes: "" while a character is unfinished. Bytes that are no UTF-8 become U+FFFD. */
  push(id: number): string;
  /** The end: what is left of an unfinished character, as U+FFFD. The decoder is as new afterwards. */
  flush(): string;
}

export interface IncrementalOptions {
  /** Spell special tokens out. */
  special?: boolean;
  /** The ids begin a text, rather than continue a prompt: drop the space that some tokenizers put in front. */
  stripSpace?: boolean;
}

export function createIncrementalDecoder(
  model: Pick<TextModel, "bytesOf">,
  { special = false, stripSpace = false }: IncrementalOptions = {},
): IncrementalDecoder {
  // A byte order mark is a character like any other here.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let atStart = stripSpace;
  const emit = (text: string): string => {
    if (!atStart || text === "") return text;
    atStart = false;
    return text.startsWith(" ") ? text.slice(1) : text;
  };
  return {
    push: (id) => emit(decoder.decode(model.bytesOf(id, special), { stream: true })),
    flush() {
      const text = emit(decoder.decode());
      atStart = stripSpace;
      return text;
    },
  };
}
