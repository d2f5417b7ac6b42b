/** Keeps a division by a spread of nothing finite (TRL). */
const EPSILON = 1e-4;

export interface Group {
  /** (G) (r − mean) / (std + 1e-4), with n − 1 in the deviation (arXiv 2402.03300). */
  advantages: number[];
  mean: number;
  std: number;
  /** All rewards are equal: the group says nothing about which explanation is better. */
  silent: boolean;
}

/** Rewards of one question's explanations (G ≥ 1) against each other. */
export function groupAdvantages(rewards: readonly number[]): Group {
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
  const squares = rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0);
  const std = rewards.length > 1 ? Math.sqrt(squares / (rewards.length - 1)) : 0;
  const silent = rewards.every((reward) => reward === rewards[0]);
  return { advantages: rewards.map((reward) => (silent ? 0 : (reward - mean) / (std + EPSILON))), mean, std, silent };
}
