/**
 * Estimators of KL(teacher ‖ student) over the tokens of an explanation (method.md, "Reward"). Log-probs are natural and
 * at the scoring temperature.
 */
import type { Stretch } from "./align.ts";

export type Estimator = "k1" | "k3" | "full" | "topk_tail";

/** Ranks of the teacher's distribution kept by `topk_tail` when the caller names none (the reference data use ten). */
export const DEFAULT_TOP_K = 10;

/** k1 per stretch: log π_T − log π_S, summed over the stretch's tokens on each side. May be negative. (S) */
export function k1(stretches: readonly Stretch[], teacher: Logprob, student: Logprob): Float64Array {
  return Float64Array.from(stretches, (stretch) => sum(teacher, stretch.teacher) - sum(student, stretch.student));
}

/** k3 = kl − 1 + e^−kl ≥ 0 (Schulman 2020, "Approximating KL divergence"). */
export function k3(values: Float64Array): Float64Array {
  return values.map((kl) => kl - 1 + Math.exp(-kl));
}

/**
 * KL over the teacher's k most likely ids and one bucket for all others: Σ p(log p − log q) + p_tail·log(p_tail / q_tail).
 * A lower bound of the full KL (log-sum inequality); never clamped.
 *
 * @param teacher (N, k) log-probs of the teacher's top k ids, @param student (N, k) the student's at the same ids. → (N)
 */
export function topkTail(teacher: Float32Array, student: Float32Array, k: number): Float64Array {
  const rows = teacher.length / k;
  return Float64Array.from({ length: rows }, (_, row) => {
    let kl = 0;
    let teacherTail = 1;
    let studentTail = 1;
    for (let i = row * k; i < (row + 1) * k; i++) {
      const p = Math.exp(teacher[i] as number);
      kl += p * ((teacher[i] as number) - (student[i] as number));
      teacherTail -= p;
      studentTail -= Math.exp(student[i] as number);
    }
    // A tail below float32's resolution of the other masses is rounding, not probability.
    if (teacherTail > TAIL_RESOLUTION)
      kl += teacherTail * Math.log(teacherTail / Math.max(studentTail, TAIL_RESOLUTION));
    return kl;
  });
}

/** Masses are sums of float32 probabilities near 1: below 2^-22 a difference from 1 is noise. */
const TAIL_RESOLUTION = 2 ** -22;

/** Log-prob of the token at a position of one side's sequence. */
type Logprob = (token: number) => number;

function sum(logprob: Logprob, span: { from: number; to: number }): number {
  let total = 0;
  for (let i = span.from; i < span.to; i++) total += logprob(i);
  return total;
}
