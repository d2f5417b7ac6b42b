import type { GraphBuilder } from "./builder.ts";
import type { GraphData, Value } from "./ir.ts";
import { type LossName, tokenLoss } from "./losses.ts";
import { add, exp, fusedMatmul, gather, gatherColumns, logSoftmax, mul, sub } from "./ops/math.ts";
import { concat, reshape, zerosLike } from "./ops/shape.ts";
import { differentiable, withTape } from "./tape.ts";

/** (N, 1) each; see losses.ts. */
export const LOSS_COLUMNS = ["weight", "advantage", "reference", "old"] as const;
/** (1, 1) each. */
export const LOSS_COEFFICIENTS = ["beta", "lowest", "highest"] as const;

export interface HeadLossInputs
  extends Readonly<Record<(typeof LOSS_COLUMNS)[number] | (typeof LOSS_COEFFICIENTS)[number], Value>> {
  /** (N, hidden), N = chunks · rows of a chunk */
  rows: Value;
  /** (V, hidden) */
  matrix: Value;
  /** int32 (N, 1) */
  targets: Value;
  /** (1, 1) */
  inverseTemperature: Value;
  /** int64 (1) */
  chunks: Value;
}

export interface HeadLoss {
  /** (N, 1): log-prob of each target. */
  logprobs: Value;
  /** (N, 1): its share of the loss. */
  loss: Value;
}

/**
 * Head, log-softmax and loss as one op, a chunk of rows at a time, so that nothing of the size rows × vocabulary is held
 * but one chunk's. Gradients are made on the way: with p = softmax(W h / T) and slope s of the loss by the log-prob,
 * dh = s (W[target] − pᵀ W) / T and dW = s (onehot(target) − p) hᵀ / T. They are those of the sum of `loss`: the seed of the
 * backward pass counts as 1.
 */
export function headLoss(g: GraphBuilder, name: LossName, inputs: HeadLossInputs): HeadLoss {
  const { rows, matrix } = inputs;
  const wants = { rows: g.tape?.needs(rows) ?? false, matrix: g.tape?.needs(matrix) ?? false };
  const { dMatrix, dRows, ...result } = withTape(g, null, () => inChunks(g, name, inputs, wants));
  differentiable(g, [result.loss], [rows, matrix], () => [() => dRows!, () => dMatrix!]);
  return result;
}

interface Wanted {
  rows: boolean;
  matrix: boolean;
}

function inChunks(
  g: GraphBuilder,
  name: LossName,
  inputs: HeadLossInputs,
  wants: Wanted,
): HeadLoss & { dRows: Value | null; dMatrix: Value | null } {
  const { rows, matrix, chunks } = inputs;
  const initial = wants.matrix ? [zerosLike(g, matrix)] : [];
  const types = new Array<"float">(initial.length + 2 + Number(wants.rows)).fill("float");
  const always = g.constant("bool", [], Uint8Array.of(1));
  const outputs = g.nodes("Loop", [reshape(g, chunks, []), always, ...initial], types, {
    attributes: { body: { graph: chunkBody(g, name, inputs, wants) } },
  });
  const dMatrix = wants.matrix ? outputs.shift()! : null;
  const [logprobs, loss, dChunks] = outputs;
  const column = (x: Value): Value => reshape(g, x, [-1, 1]);
  const likeRows = g.node("Shape", [rows], { type: "int64" });
  return {
    logprobs: column(logprobs!),
    loss: column(loss!),
    dRows: dChunks ? reshape(g, dChunks, likeRows) : null,
    dMatrix,
  };
}

function chunkBody(g: GraphBuilder, name: LossName, inputs: HeadLossInputs, wants: Wanted): GraphData {
  const { matrix, inverseTemperature, chunks } = inputs;
  const stacked = (x: Value): Value => {
    const width = g.node("Shape", [x], { type: "int64", attributes: { start: { int: 1 } } });
    return reshape(g, x, concat(g, [chunks, g.int64s([-1]), width], 0)); // (chunks, C, …)
  };
  const rows = stacked(inputs.rows);
  const targets = stacked(inputs.targets);
  const columns = LOSS_COLUMNS.map((column) => [column, stacked(inputs[column])] as const);
  return g.branch((b) => {
    const chunk = b.input("chunk", "int64", []);
    const going = b.input("going", "bool", []);
    const of = (x: Value): Value => gather(b, x, chunk);
    const scaled = mul(b, of(rows), inverseTemperature); // (C, hidden)
    const target = of(targets);
    const all = logSoftmax(b, fusedMatmul(b, scaled, matrix, { transB: true })); // (C, V)
    const logprob = gatherColumns(b, all, target); // (C, 1)
    const own = Object.fromEntries(columns.map(([column, x]) => [column, of(x)])) as Record<
      (typeof LOSS_COLUMNS)[number],
      Value
    >;
    const { loss, slope } = tokenLoss(b, name, { ...inputs, ...own, logprob });
    const grown: Value[] = [];
    const made = [logprob, loss];
    if (wants.rows || wants.matrix) {
      const probs = exp(b, all);
      if (wants.matrix) {
        // Into the sum goes slope · onehot(target) − slope · p.
        const minus = mul(b, probs, b.node("Neg", [slope]));
        const dLogits = b.node("ScatterElements", [minus, target, slope], {
          attributes: { axis: { int: 1 }, reduction: { string: "add" } },
        });
        const before = b.input("d_matrix", "float", ["V", "H"]);
        grown.push(add(b, before, fusedMatmul(b, dLogits, scaled, { transA: true })));
      }
      if (wants.rows) {
        const rowOf = gather(b, matrix, reshape(b, target, [-1])); // W[target]
        const pull = sub(b, rowOf, fusedMatmul(b, probs, matrix, {}));
        made.push(mul(b, mul(b, pull, slope), inverseTemperature));
      }
    }
    return [b.node("Identity", [going]), ...grown, ...made];
  });
}
