/** How the explanations of one question compare, where rows bring them: several rows with the same question are its candidates. */
import { hashQuestion } from "../datasets/index-file.ts";
import type { Outcome } from "./generate.ts";

export interface Rank {
  /** 1 is the best. */
  rank: number;
  of: number;
}

/** By row; only of those that passed every filter and have a score. Equal rewards rank in the order of their rows. */
export async function ranksOf(outcomes: AsyncIterable<Outcome>): Promise<Map<number, Rank>> {
  const groups = new Map<string, { row: number; reward: number }[]>();
  for await (const { row, record, selected } of outcomes) {
    const [verdict] = selected.verdicts;
    if (!verdict || verdict.reason !== null || !verdict.sample.score) continue;
    const question = hashQuestion(row.question).toString("latin1");
    const group = groups.get(question) ?? [];
    group.push({ row: record.row, reward: verdict.sample.score.reward });
    groups.set(question, group);
  }
  const ranks = new Map<number, Rank>();
  for (const group of groups.values()) {
    group.sort((a, b) => b.reward - a.reward || a.row - b.row);
    for (const [i, { row }] of group.entries()) ranks.set(row, { rank: i + 1, of: group.length });
  }
  return ranks;
}
