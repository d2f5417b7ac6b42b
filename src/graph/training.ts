import type { Checkpoint, ModelConfig } from "../model/checkpoint.ts";
import { type BlockContext, loraInput, normStream, type Stream } from "./blocks/context.ts";
import { layer } from "./blocks/layer.ts";
import { trainingAttention } from "./blocks/training-attention.ts";
import { createGraph, type GraphBuilder } from "./builder.ts";
import { headLoss, LOSS_COEFFICIENTS, LOSS_COLUMNS } from "./head-loss.ts";
import type { GraphData, Value } from "./ir.ts";
import { live } from "./live.ts";
import type { LossName } from "./losses.ts";
import { headMatrix, type LayerMatrix } from "./matrices.ts";
import { gather, repeatRow } from "./ops/math.ts";
import { concat, reshape, transpose } from "./ops/shape.ts";
import { createTape, gradients, recomputed } from "./tape.ts";
import { embed, maskWindows } from "./trunk.ts";
import { createWeights } from "./weights.ts";

export interface TrainingGraphOptions {
  loss: LossName;
  /** Which LoRA matrices are trained; null: every parameter, which are then inputs of the graph under their own names. */
  lora: ReadonlySet<LayerMatrix> | null;
  /** Frozen weights are inputs too, in float (`WeightSource` "matrices"), instead of being widened on every use. */
  widened: boolean;
  /** Whether sequences continue a prompt that is computed once. */
  sharedPrompt: boolean;
  /** Keep only what enters each layer, and compute the rest of it again on the way back. */
  recompute: boolean;
  /** False: log-probs and loss only. */
  backward: boolean;
}

/** Name of the output that holds the gradient of a parameter. */
export const gradientOf = (parameter: string): string => `grad.${parameter}`;

/**
 * One micro-batch forward and back: B sequences of S tokens, after P tokens of a prompt where they share one; N = P + B·S.
 *
 * Inputs: `ids` int32 (1, N); `positions` int64 (N, 1); `sequences`, `length`, `prompt` int64 (1): B, S, P; per RoPE `cos.<r>`,
 * `sin.<r>`; per window `mask.<w>` (S, P + S) and `prompt_mask.<w>` (P, P); `rows` int64 (M), the rows whose next token
 * carries weight, `targets` int32 (M, 1) those tokens; `weight advantage reference old` (M, 1); `beta lowest highest
 * inverse_temperature` (1, 1); `chunks` int64 (1), which divides M; the trained tensors, and the
 * frozen ones where `widened`.
 * Outputs: `logprobs`, `loss` (M, 1); `grad.<input>` of everything trained.
 */
export function trainingGraph(checkpoint: Checkpoint, options: TrainingGraphOptions): GraphData {
  const { config } = checkpoint;
  const { lora, sharedPrompt } = options;
  const g = createGraph("training");
  const trained = new Set<string>(lora ? loraNames(config, lora) : Object.keys(checkpoint.tensors));
  if (options.backward) g.tape = createTape(({ name }) => trained.has(name));
  const weights = createWeights(
    g,
    checkpoint,
    null,
    lora === null ? "tensors" : options.widened ? "matrices" : "files",
  );
  const c: BlockContext = { g, config, weights, lora: lora ?? false };
  const ids = g.input("ids", "int32", [1, "N"]);
  // As N sequences of one: the rotary kernel wants no sequence to be longer than its tables.
  const positions = g.input("positions", "int64", ["N", 1]);
  const count = (name: string): Value => g.input(name, "int64", [1]);
  const shape = { sequences: count("sequences"), length: count("length") };
  const promptCount = sharedPrompt ? count("prompt") : null;
  const tables = config.ropes.map((_, r) => ({
    cos: g.input(`cos.${r}`, "float", ["positions", config.headDim / 2]),
    sin: g.input(`sin.${r}`, "float", ["positions", config.headDim / 2]),
    positions,
  }));
  const windows = maskWindows(config);
  const masks = windows.map((_, w) => groupedMask(g, config, `mask.${w}`));
  const promptMasks = promptCount ? windows.map((_, w) => groupedMask(g, config, `prompt_mask.${w}`)) : [];

  let stream: Stream = { residual: embed(c, ids), pending: null };
  for (const [index, { rope, window }] of config.layerKinds.entries()) {
    const w = windows.indexOf(window);
    const prompt = promptCount && { mask: promptMasks[w]!, count: promptCount };
    const io = { ...tables[rope]!, ...shape, mask: masks[w]!, prompt };
    const build = ([residual, pending]: readonly Value[]): Value[] => {
      const after = layer(c, { residual: residual!, pending: pending ?? null }, index, (_, x) =>
        trainingAttention(c, x, index, io),
      );
      return [after.residual, after.pending!];
    };
    const before = stream.pending ? [stream.residual, stream.pending] : [stream.residual];
    const [residual, pending] = options.recompute ? recomputed(g, before, build) : build(before);
    stream = { residual: residual!, pending: pending! };
  }
  const { normed } = normStream(c, stream, "model.norm");

  const column = (name: string): Value => g.input(name, "float", ["M", 1]);
  const coefficient = (name: string): Value => g.input(name, "float", [1, 1]);
  const named = <K extends string>(names: readonly K[], input: (name: string) => Value) =>
    Object.fromEntries(names.map((name) => [name, input(name)])) as Record<K, Value>;
  const { logprobs, loss } = headLoss(g, options.loss, {
    rows: gather(g, normed, g.input("rows", "int64", ["M"])),
    matrix: weights.float(headMatrix(config).parts[0]!),
    targets: g.input("targets", "int32", ["M", 1]),
    inverseTemperature: coefficient("inverse_temperature"),
    chunks: count("chunks"),
    ...named(LOSS_COLUMNS, column),
    ...named(LOSS_COEFFICIENTS, coefficient),
  });
  g.output(g.node("Identity", [logprobs], { names: ["logprobs"] }));
  g.output(g.node("Identity", [loss], { names: ["loss"] }));
  if (g.tape) {
    const { tape } = g;
    gradients(g, [[loss, loss]]);
    for (const name of trained) {
      const gradient = tape.trained.get(name);
      if (gradient) g.output(g.node("Identity", [gradient], { names: [gradientOf(name)] }));
    }
  }
  return inOrder(live(g.build()));
}

/** The LoRA inputs of all layers. */
export function loraNames(config: ModelConfig, kinds: ReadonlySet<LayerMatrix>): string[] {
  return Array.from({ length: config.layers }, (_, index) =>
    [...kinds].flatMap((kind) => [loraInput("a", index, kind), loraInput("b", index, kind)]),
  ).flat();
}

/** (rows, T) as it is fed → (rows·G, T): each query head of a key head needs its row. */
function groupedMask(g: GraphBuilder, config: ModelConfig, name: string): Value {
  const mask = g.input(name, "float", ["rows", "T"]);
  const group = config.heads / config.kvHeads;
  if (group === 1) return mask;
  const width = g.node("Shape", [mask], { type: "int64", attributes: { start: { int: 1 } } });
  const turned = transpose(g, repeatRow(g, mask, group), [1, 0, 2]); // (rows, G, T)
  return reshape(g, turned, concat(g, [g.int64s([-1]), width], 0));
}

/**
 * ONNX Runtime takes nodes in the reverse of their order in the file wherever dependencies leave it a choice (engine.md 4):
 * reversed, they are computed in the order in which they were built, and what one layer needed is gone before the next.
 */
function inOrder(graph: GraphData): GraphData {
  return { ...graph, nodes: [...graph.nodes].reverse() };
}
