import type { Checkpoint } from "../model/checkpoint.ts";
import { createGraph, type GraphBuilder } from "./builder.ts";
import { type ElementType, type GraphData, int, type Value } from "./ir.ts";
import { headMatrix, type PackedMatrix } from "./matrices.ts";
import {
  add,
  cast,
  exp,
  gather,
  gatherColumns,
  logSoftmax,
  maximum,
  minimum,
  mul,
  softmax,
  sub,
  sumLast,
  when,
} from "./ops/math.ts";
import { padEnd, reshape } from "./ops/shape.ts";
import { createWeights } from "./weights.ts";

/** What the head can compute from its logits; each is skipped unless its input `want.<name>` is true. */
export const HEAD_PARTS = [
  "draw",
  "best",
  "probs",
  "logprobs",
  "target",
  "entropy",
  "rank",
  "top",
  "at",
  "kl",
] as const;
export type HeadPart = (typeof HEAD_PARTS)[number];

/** exp() of it is 0 and 0 times it is 0: stands in for log-probs of −∞, where 0 · −∞ would be NaN. */
const LOWEST_LOGPROB = -1e30;
/** Ids per block when a token is drawn: the vocabulary's 150,000 become about 1,000 sums, and one block leaves the graph. */
export const DRAW_BLOCK = 128;
/** A draw must end before the last sum, or rounding could choose an id of probability 0. */
const BELOW_ONE = 1 - 2 ** -23;

/**
 * Rows of hidden states to whatever is asked about the next token. One graph, so that one packed head weight serves
 * sampling, scoring and comparison; vocabulary-wide results leave it only when fetched.
 *
 * Inputs: `rows` (N, hidden); `inverse_temperature` (N, 1); `uniform` (N, 1) in [0, 1); `targets` int32 (N, 1); `at` int32
 * (N, K); `k` int64 (1); `reference` (N, V) log-probs; `want.<part>` bool ().
 * Outputs, all at the temperature: `logits` (N, V), `probs` (N, V), `logprobs` (N, V), `target` (N, 1), `entropy` (N, 1) in
 * nats, `rank` (N, 1) as float, `top_logprobs` and `top_ids` int64 (N, k), `at_logprobs` (N, K), `kl` (N, 1) = KL(reference ‖ model);
 * `best_id` int64 (N, 1) and `best_prob`; of a draw `draw_block` int64 (N, 1), the block of ids in which `uniform` falls,
 * `draw_probs` (N, DRAW_BLOCK) its probabilities, `draw_before` (N, 1) those of all earlier blocks together, `draw_at` (N, 1)
 * where in the running sum the drawn id lies, and `draw_total` (N, 1).
 */
export function headGraph(checkpoint: Checkpoint, packed: ReadonlyMap<string, PackedMatrix> | null): GraphData {
  const { config } = checkpoint;
  const g = createGraph("head");
  const rows = g.input("rows", "float", ["N", config.hiddenSize]);
  const inverseTemperature = g.input("inverse_temperature", "float", ["N", 1]);
  const uniform = g.input("uniform", "float", ["U", 1]);
  const targets = g.input("targets", "int32", ["N", 1]);
  const at = g.input("at", "int32", ["N", "K"]);
  const k = g.input("k", "int64", [1]);
  const reference = g.input("reference", "float", ["M", "V"]);
  const wanted = new Map(HEAD_PARTS.map((part) => [part, g.input(`want.${part}`, "bool", [])]));

  // Scaling the rows scales the logits, and rows are the smaller matrix.
  const scaled = createWeights(g, checkpoint, packed).product(
    mul(g, rows, inverseTemperature),
    headMatrix(config),
    "logits",
  );
  g.output(scaled);

  const parts = (
    name: HeadPart,
    outputs: Readonly<Record<string, ElementType>>,
    build: (g: GraphBuilder) => Value[],
  ): Value[] => {
    const no = (b: GraphBuilder): Value[] => Object.values(outputs).map((type) => nothing(b, type));
    const values = when(g, wanted.get(name)!, outputs, build, no);
    for (const value of values) g.output(value);
    return values;
  };
  const part = (name: HeadPart, output: string, build: (g: GraphBuilder) => Value): Value =>
    parts(name, { [output]: "float" }, (b) => [build(b)])[0]!;

  parts("draw", DRAW_OUTPUTS, (b) => draw(b, scaled, uniform, config.vocabSize));
  parts("best", { best_id: "int64", best_prob: "float" }, (b) => best(b, scaled));
  part("probs", "probs", (b) => softmax(b, scaled));
  const logprobs = part("logprobs", "logprobs", (b) => logSoftmax(b, scaled));
  part("target", "target", (b) => gatherColumns(b, logprobs, targets));
  part("entropy", "entropy", (b) => entropy(b, logprobs));
  part("rank", "rank", (b) => rank(b, scaled, targets));
  part("at", "at_logprobs", (b) => gatherColumns(b, logprobs, at));
  part("kl", "kl", (b) => divergence(b, reference, logprobs));
  parts("top", { top_logprobs: "float", top_ids: "int64" }, (b) =>
    b.nodes("TopK", [logprobs, k], ["float", "int64"], { attributes: { axis: int(-1), sorted: int(1) } }),
  );
  return g.build();
}

const DRAW_OUTPUTS = {
  draw_block: "int64",
  draw_probs: "float",
  draw_before: "float",
  draw_at: "float",
  draw_total: "float",
} as const satisfies Record<string, ElementType>;

/** Finds the block of the inverse cumulative distribution at `uniform`; the id inside it is JavaScript's to find. */
function draw(g: GraphBuilder, scaled: Value, uniform: Value, vocabSize: number): Value[] {
  const padding = (DRAW_BLOCK - (vocabSize % DRAW_BLOCK)) % DRAW_BLOCK;
  const probs = softmax(g, scaled);
  const whole = padding > 0 ? padEnd(g, probs, 2, 1, padding) : probs;
  const blocks = reshape(g, whole, [0, -1, DRAW_BLOCK]); // (N, V / DRAW_BLOCK, DRAW_BLOCK)
  const sums = g.node("ReduceSum", [blocks, g.int64s([-1])], { attributes: { keepdims: int(0) } });
  const running = g.node("CumSum", [sums, g.int64(1)]); // (N, V / DRAW_BLOCK)
  const total = gather(g, running, g.int64s([-1]), 1);
  const target = mul(g, total, minimum(g, uniform, g.float(BELOW_ONE)));
  const passed = cast(g, g.node("LessOrEqual", [running, target], { type: "bool" }), "float");
  const block = cast(g, sumLast(g, passed), "int64"); // (N, 1): blocks that end at or before the target
  const before = sub(g, gatherColumns(g, running, block), gatherColumns(g, sums, block));
  const chosen = g.node("GatherND", [blocks, block], { attributes: { batch_dims: int(1) } });
  return [block, chosen, before, target, total];
}

function best(g: GraphBuilder, scaled: Value): Value[] {
  const id = g.node("ArgMax", [scaled], { type: "int64", attributes: { axis: int(-1), keepdims: int(1) } });
  return [id, gatherColumns(g, softmax(g, scaled), id)];
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
