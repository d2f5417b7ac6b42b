/** The teacher's side of an explanation that it has just written: its own ids and log-probs, so that it is not run twice. */
import { fail } from "../errors.ts";
import { createIncrementalDecoder } from "../text/incremental.ts";
import type { TextModel } from "../text/text.ts";
import { alignTokens } from "./align.ts";
import type { Comparison } from "./compare.ts";
import { THOUGHT } from "./prompts.ts";
import type { Reading } from "./reading.ts";

/** What a teacher sampled after its prompt, as far as the closing tag or beyond. All (T). */
export interface Sampled {
  ids: number[];
  /** At the temperature of the score. */
  logprobs: number[];
  /** Nats that each may be wrong; 0: it is exact. */
  errorBounds: number[];
}

/**
 * Sampled ids over the stretches of bytes that they share with the student's tokens. Throws `invalid_value` where the student's
 * tokenizer reads another text than was written.
 */
export function compareSampled(
  text: Pick<TextModel, "bytesOf">,
  { ids, logprobs, errorBounds }: Sampled,
  thought: string,
  read: Reading,
): Comparison {
  const written = Buffer.from(thought);
  const { start, end } = read.encoded.fields[THOUGHT] ?? { start: 0, end: 0 };
  if (!Buffer.from(read.encoded.text).subarray(start, end).equals(written)) {
    throw fail(
      "invalid_value",
      "the student's tokenizer changes characters of this explanation (Unicode normalisation), so the tokens that the teacher " +
        "sampled cannot be laid beside the student's; use a teacher that can score texts",
      { param: "explanation" },
    );
  }
  const pieces = ids.map((id) => text.bytesOf(id));
  const ends = endsOf(text, ids, pieces);
  // A special token before the first byte says nothing about the text.
  const from = pieces.findIndex(({ length }) => length > 0);
  const beyond = ends.findIndex((end) => end > written.length);
  const stretches = alignTokens(
    { ends, span: { from, to: beyond < 0 ? ids.length : beyond }, start: 0 },
    { ends: read.encoded.ends, span: read.thought, start: read.thoughtStart },
  );
  return {
    stretches,
    teacherLogprobs: (token) => logprobs[token] as number,
    teacherBounds: errorBounds.some((bound) => bound > 0) ? (token) => errorBounds[token] as number : null,
    values: null,
    cachedTokens: 0,
  };
}

/** (T) Where each id ends in the bytes of the text they make. Where bytes are no UTF-8, at the end of what replaces them. */
function endsOf(text: Pick<TextModel, "bytesOf">, ids: readonly number[], pieces: readonly Uint8Array[]): Int32Array {
  const whole = Buffer.concat(pieces);
  if (Buffer.from(whole.toString("utf8")).equals(whole)) return running(pieces.map(({ length }) => length));
  const decoder = createIncrementalDecoder(text);
  const lengths = ids.map((id) => Buffer.byteLength(decoder.push(id)));
  lengths[lengths.length - 1]! += Buffer.byteLength(decoder.flush());
  return running(lengths);
}

function running(lengths: readonly number[]): Int32Array {
  let end = 0;
  return Int32Array.from(lengths, (length) => (end += length));
}
