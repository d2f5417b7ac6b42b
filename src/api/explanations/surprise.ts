import { PreceptorError } from "../../errors.ts";
import { type FamiliarityPair, type ProblemSurprise, problemSurprise } from "../../rlt/familiarity.ts";
import type { Asking } from "../../rlt/reading.ts";
import { isFaultOfItem } from "../scores/service.ts";

/** A solution that the student cannot read loses the student's side only; why, the scores of the choices say. */
export async function surpriseOfProblem(
  pair: FamiliarityPair,
  problem: { question: string; solution: string },
  options: Asking & { temperature: number },
): Promise<ProblemSurprise> {
  try {
    return await problemSurprise(pair, problem, options);
  } catch (error) {
    if (!(pair.student && error instanceof PreceptorError && isFaultOfItem(error))) throw error;
    return problemSurprise({ ...pair, student: null }, problem, options);
  }
}
