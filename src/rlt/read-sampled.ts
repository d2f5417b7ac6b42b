/** What a student reads of an explanation that was sampled with its own tokenizer: the very ids that were drawn. */

import type { StudentFormat } from "./formats.ts";
import { SOLUTION, studentText, THOUGHT } from "./prompts.ts";
import { type Reading, readByStudent, type ScoringModel } from "./reading.ts";
import { tokensInside } from "./spans.ts";

/**
 * Sampled ids are often not what re-tokenising their text gives, and a student that read other tokens would be compared with
 * words that the teacher did not say (method.md, "Two tokenizers"). Where a token of the sample reaches over the closing tag,
 * or the text around it is joined in another way than it is written, the text decides: `readByStudent`.
 */
export async function readSampled(
  student: ScoringModel<StudentFormat>,
  question: string,
  solution: string,
  thought: string,
  sampledIds: readonly number[],
): Promise<Reading> {
  const read = await readByStudent(student, question, solution, thought);
  const { encoded } = read;
  const range = encoded.fields[THOUGHT]!;
  const ids = idsOf(student, sampledIds, Buffer.from(thought));
  if (!ids) return read;
  const { from, to } = read.thought;
  const covers = (encoded.ends[from - 1] ?? 0) === range.start && encoded.ends[to - 1] === range.end;
  if (covers && to - from === ids.length && ids.every((id, i) => id === encoded.ids[from + i])) return read;

  const request = studentText(student.format, question, solution, thought);
  const parts = request.assistant ?? [];
  const at = parts.findIndex(({ field }) => field === THOUGHT);
  const before = await student.text.encodePrompt({ ...request, assistant: parts.slice(0, at) });
  const bytes = Buffer.from(encoded.text);
  const written = Buffer.from(before.text).equals(bytes.subarray(0, range.start));
  if (!written || !bytes.subarray(range.start, range.end).equals(Buffer.from(thought))) return read;
  const rest = bytes.subarray(range.end).toString("utf8");
  const after = await student.text.encode(rest, { parseSpecial: false, addSpecial: false });
  if (after.text !== rest) return read;

  let end = range.start;
  const thoughtEnds = ids.map((id) => (end += student.text.bytesOf(id).length));
  const ends = Int32Array.from([...before.ends, ...thoughtEnds, ...Array.from(after.ends, (at_) => range.end + at_)]);
  const first = before.ids.length;
  return {
    ...read,
    encoded: { ...encoded, ids: Int32Array.from([...before.ids, ...ids, ...after.ids]), ends },
    thought: { from: first, to: first + ids.length },
    solution: tokensInside(ends, encoded.fields[SOLUTION]!),
  };
}

/** The ids that make up the explanation and nothing else; null: none do. */
function idsOf(
  { text }: Pick<ScoringModel<unknown>, "text">,
  sampled: readonly number[],
  thought: Buffer,
): number[] | null {
  const ids: number[] = [];
  let end = 0;
  for (const id of sampled) {
    if (end >= thought.length) break;
    const bytes = text.bytesOf(id);
    // Special tokens are no part of what was said, and no student is to be handed one.
    if (bytes.length === 0) return null;
    if (!thought.subarray(end, end + bytes.length).equals(Buffer.from(bytes))) return null;
    ids.push(id);
    end += bytes.length;
  }
  return end === thought.length ? ids : null;
}
