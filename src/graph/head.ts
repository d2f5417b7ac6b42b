import type { Checkpoint } from "../model/checkpoint.ts";
import { createGraph, type GraphBuilder } from "./builder.ts";
import { type ElementType, type GraphData, int, type Value } from "./ir.ts";
import { add, cast, exp, gatherColumns, logSoftmax, maximum, mul, softmax, sub, sumLast, when } from "./ops/math.ts";
import { createWeights, type QuantisedWeights } from "./weights.ts";

/** What the head can compute from its logits; each is skipped unless its input `want.<name>` is true. */
export const HEAD_PARTS = ["probs", "logprobs", "target", "entropy", "rank", "top", "at", "kl"] as const;
export type HeadPart = (typeof HEAD_PARTS)[number];

/** exp() of it is 0 and 0 times it is 0: stands in for log-probs of −∞, where 0 · −∞ would be NaN. */
const LOWEST_LOGPROB = -1e30;

/**
 * Rows of hidden states to whatever is asked about the next token. One graph, so that one packed head weight serves
 * sampling, scoring and comparison; vocabulary-wide results leave it only when fetched.
 *
 * Inputs: `rows` (N, hidden); `inverse_temperature` (N, 1); `targets` int32 (N, 1); `at` int32 (N, K);
 * `k` int64 (1); `reference` (N, V) log-probs; `want.<part>` bool ().
 * Outputs: `logits` (N, V) unscaled; at the temperature `probs` (N, V), `logprobs` (N, V), `target` (N, 1), `entropy` (N, 1) in
 * nats, `rank` (N, 1) as float, `top_logprobs` and `top_ids` int64 (N, k), `at_logprobs` (N, K), `kl` (N, 1) = KL(reference ‖ model).
 */
export function headGraph(checkpoint: Checkpoint, quantised: QuantisedWeights): GraphData {
  const { config } = checkpoint;
  const g = createGraph("head");
  const rows = g.input("rows", "float", ["N", config.hiddenSize]);
  const inverseTemperature = g.input("inverse_temperature", "float", ["N", 1]);
  const targets = g.input("targets", "int32", ["N", 1]);
  const at = g.input("at", "int32", ["N", "K"]);
  const k = g.input("k", "int64", [1]);
  const reference = g.input("reference", "float", ["M", "V"]);
  const wanted = new Map(HEAD_PARTS.map((part) => [part, g.input(`want.${part}`, "bool", [])]));

  const weight = config.tiedHead ? "model.embed_tokens.weight" : "lm_head.weight";
  const logits = createWeights(g, checkpoint, quantised).product(rows, weight, "logits");
  g.output(logits);
  const scaled = mul(g, logits, inverseTemperature);

  const part = (name: HeadPart, output: string, build: (g: GraphBuilder) => Value): Value => {
    const no = (b: GraphBuilder): Value[] => [nothing(b, "float")];
    const [value] = when(g, wanted.get(name)!, { [output]: "float" }, (b) => [build(b)], no);
    g.output(value!);
    return value!;
  };
  part("probs", "probs", (b) => softmax(b, scaled));
  const logprobs = part("logprobs", "logprobs", (b) => logSoftmax(b, scaled));
  part("target", "target", (b) => gatherColumns(b, logprobs, targets));
  part("entropy", "entropy", (b) => entropy(b, logprobs));
  part("rank", "rank", (b) => rank(b, scaled, targets));
  part("at", "at_logprobs", (b) => gatherColumns(b, logprobs, at));
  part("kl", "kl", (b) => divergence(b, reference, logprobs));
  const top = when(
    g,
    wanted.get("top")!,
    { top_logprobs: "float", top_ids: "int64" },
    (b) => b.nodes("TopK", [logprobs, k], ["float", "int64"], { attributes: { axis: int(-1), sorted: int(1) } }),
    (b) => [nothing(b, "float"), nothing(b, "int64")],
  );
  for (const value of top) g.output(value);
  return g.build();
}

/** −Σ p log p */
function entropy(g: GraphBuilder, logprobs: Value): Value {
  return g.node("Neg", [sumLast(g, mul(g, exp(g, logprobs), logprobs))]);
}

/** 1 + the number of larger logits; exact in float up to 2²⁴ ids. */
function rank(g: GraphBuilder, scaled: Value, targets: Value): Value {
  const larger = g.node("Greater", [scaled, gatherColumns(g, scaled, targets)], { type: "bool" });
  return add(g, sumLast(g, cast(g, larger, "float")), g.float(1));
}

/** Σ r (log r − log p) */
function divergence(g: GraphBuilder, reference: Value, logprobs: Value): Value {
  const r = maximum(g, reference, g.float(LOWEST_LOGPROB));
  return sumLast(g, mul(g, exp(g, r), sub(g, r, logprobs)));
}

/** What a branch not taken yields. */
function nothing(g: GraphBuilder, type: ElementType): Value {
  return g.node("Identity", [g.constant(type, [0, 0], new Uint8Array(0))]);
}
