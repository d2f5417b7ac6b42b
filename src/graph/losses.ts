/** Losses over log-probs of single tokens, each with its slope under its value. */
import type { GraphBuilder } from "./builder.ts";
import type { Value } from "./ir.ts";
import { add, cast, exp, maximum, minimum, mul, sub } from "./ops/math.ts";

export const LOSSES = ["cross_entropy", "grpo", "importance_sampling", "ppo"] as const;
export type LossName = (typeof LOSSES)[number];

/** Columns (N, 1), one row per token that carries weight; coefficients are (1, 1). */
export interface LossInputs {
  /** log π(token) at the temperature of the loss. */
  logprob: Value;
  /** What the token counts in the mean; already divided by what is averaged over. */
  weight: Value;
  advantage: Value;
  /** log-probs of the reference model and of the policy that sampled. */
  reference: Value;
  old: Value;
  /** Coefficient of the KL term; 0 leaves it out. */
  beta: Value;
  /** 1 − clip_low and 1 + clip_high. */
  lowest: Value;
  highest: Value;
}

/** A token's share of the loss and its derivative by the token's log-prob, (N, 1) each. */
export interface TokenLoss {
  loss: Value;
  slope: Value;
}

export function tokenLoss(g: GraphBuilder, name: LossName, inputs: LossInputs): TokenLoss {
  const { loss, slope } = RULES[name](g, inputs);
  return { loss: mul(g, inputs.weight, loss), slope: mul(g, inputs.weight, slope) };
}

const RULES: Readonly<Record<LossName, (g: GraphBuilder, inputs: LossInputs) => TokenLoss>> = {
  /** −lp */
  cross_entropy: (g, { logprob }) => ({ loss: negative(g, logprob), slope: g.float(-1) }),
  /** −exp(lp − stop(lp)) A + β k3: on-policy, the ratio is 1 and its derivative too (arXiv 2402.03300, eq. 3 and 4). */
  grpo(g, inputs) {
    const minus = negative(g, inputs.advantage);
    return withKl(g, inputs, { loss: minus, slope: minus });
  },
  /** −ρ A + β k3 with ρ = exp(lp − old), which is its own derivative. */
  importance_sampling(g, inputs) {
    const minus = negative(g, mul(g, ratio(g, inputs), inputs.advantage));
    return withKl(g, inputs, { loss: minus, slope: minus });
  },
  /** −min(ρ A, clip(ρ) A) + β k3 (arXiv 1707.06347, eq. 7); flat where the clipped one is the smaller. */
  ppo(g, inputs) {
    const rho = ratio(g, inputs);
    const free = mul(g, rho, inputs.advantage);
    const clipped = mul(g, minimum(g, maximum(g, rho, inputs.lowest), inputs.highest), inputs.advantage);
    const steep = cast(g, g.node("LessOrEqual", [free, clipped], { type: "bool" }), "float");
    return withKl(g, inputs, {
      loss: negative(g, minimum(g, free, clipped)),
      slope: negative(g, mul(g, steep, free)),
    });
  },
};

/** Adds β k3, k3 = exp(ref − lp) − (ref − lp) − 1, whose slope is 1 − exp(ref − lp). */
function withKl(g: GraphBuilder, { logprob, reference, beta }: LossInputs, { loss, slope }: TokenLoss): TokenLoss {
  const distance = sub(g, reference, logprob);
  const grown = exp(g, distance);
  const k3 = sub(g, sub(g, grown, distance), g.float(1));
  return {
    loss: add(g, loss, mul(g, beta, k3)),
    slope: add(g, slope, mul(g, beta, sub(g, g.float(1), grown))),
  };
}

const ratio = (g: GraphBuilder, { logprob, old }: LossInputs): Value => exp(g, sub(g, logprob, old));
const negative = (g: GraphBuilder, x: Value): Value => g.node("Neg", [x]);
