/** Scores token by token, as the API shows them. */
import type { LogprobsResult } from "../engine/engine.ts";
import type { TextModel } from "../text/text.ts";
import type { Comparison } from "./compare.ts";
import type { Reading } from "./reading.ts";
import type { TokenSpan } from "./spans.ts";

export interface ScoredToken {
  id: number;
  text: string;
  /** Byte offsets in the explanation, or in the padded solution. */
  start: number;
  end: number;
  logprob: number;
  rank: number | null;
  entropy: number | null;
}

export interface ThoughtToken extends Omit<ScoredToken, "logprob"> {
  student_logprob: number;
  /** With two tokenizers these speak of a whole stretch and stand at its first token, null at the others. */
  teacher_logprob: number | null;
  kl: number | null;
}

/** The student's tokens of explanation and solution; `values` is the KL per stretch of `compared`. */
export function describeTokens(
  text: TextModel,
  read: Reading,
  scores: LogprobsResult,
  compared: Comparison | null,
  values: Float64Array | null,
): { solution: ScoredToken[]; thought: ThoughtToken[] } {
  const describe = (token: number, origin: number): ScoredToken => {
    const id = read.encoded.ids[token] as number;
    const row = token - scores.from;
    const end = read.encoded.ends[token] as number;
    return {
      id,
      text: decoder.decode(text.bytesOf(id)),
      start: (token === 0 ? 0 : (read.encoded.ends[token - 1] as number)) - origin,
      end: end - origin,
      logprob: scores.logprobs[row] as number,
      rank: scores.rank?.[row] ?? null,
      entropy: scores.entropy?.[row] ?? null,
    };
  };
  const firstOf = new Map<number, { teacher: number; kl: number }>();
  compared?.stretches.forEach((stretch, i) => {
    let teacher = 0;
    for (let t = stretch.teacher.from; t < stretch.teacher.to; t++) teacher += compared.teacherLogprobs(t);
    firstOf.set(stretch.student.from, { teacher, kl: values?.[i] as number });
  });
  const thought = range(read.thought).map((token): ThoughtToken => {
    const { logprob, ...rest } = describe(token, read.thoughtStart);
    const stretch = firstOf.get(token);
    return { ...rest, student_logprob: logprob, teacher_logprob: stretch?.teacher ?? null, kl: stretch?.kl ?? null };
  });
  return { thought, solution: range(read.solution).map((token) => describe(token, read.solutionStart)) };
}

/** A byte order mark is a character like any other here. */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

const range = ({ from, to }: TokenSpan): number[] => Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

const controlTokensOf = new WeakMap<TextModel, readonly string[]>();

/** Texts of a tokenizer's special tokens (those that stand for no bytes in running text). */
export function controlTokens(text: TextModel): readonly string[] {
  let found = controlTokensOf.get(text);
  if (!found) {
    const tokens: string[] = [];
    for (let id = 0; id < text.size; id++) {
      if (text.bytesOf(id).length > 0) continue;
      const spelled = decoder.decode(text.bytesOf(id, true));
      if (spelled.trim() !== "") tokens.push(spelled);
    }
    found = tokens;
    controlTokensOf.set(text, found);
  }
  return found;
}
