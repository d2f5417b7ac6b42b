/** What is trained: tensors with their gradients, as the training graph takes and returns them. */
import { loraInput } from "../../../graph/blocks/context.ts";
import type { LayerMatrix } from "../../../graph/matrices.ts";
import { gradientOf } from "../../../graph/training.ts";
import type { Checkpoint, ModelConfig } from "../../../model/checkpoint.ts";
import { type LoraPart, type LoraUpdates, loraFeeds, loraStacks } from "../lora-feeds.ts";
import { type Tensor, type TensorData, tensor } from "../runtime.ts";

export interface Parameter {
  /** Of the checkpoint, or PEFT's without its prefix: `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
  /** Added up over micro-batches until it is used. */
  readonly gradient: Float32Array;
  /** Running means of the gradient and of its square (AdamW). */
  readonly mean: Float32Array;
  readonly square: Float32Array;
}

export interface ParameterSet {
  readonly list: readonly Parameter[];
  /** Matrices beside which the graph takes LoRA tensors; null: all tensors are inputs. */
  readonly lora: ReadonlySet<LayerMatrix> | null;
  /** The current values. */
  feeds(): Readonly<Record<string, Tensor>>;
  /** Outputs of the graph that hold gradients. */
  readonly outputs: readonly string[];
  add(outputs: Readonly<Record<string, TensorData>>): void;
}

export function createParameter(name: string, shape: readonly number[], values: Float32Array): Parameter {
  const zeros = (): Float32Array => new Float32Array(values.length);
  return { name, shape, values, gradient: zeros(), mean: zeros(), square: zeros() };
}

/** Every tensor of a checkpoint. `values` by the checkpoint's names. */
export function fullParameters(checkpoint: Checkpoint, values: ReadonlyMap<string, Float32Array>): ParameterSet {
  const list = [...values].map(([name, data]) => createParameter(name, checkpoint.tensors[name]!.shape, data));
  const feeds = Object.fromEntries(list.map(({ name, shape, values: data }) => [name, tensor("float32", shape, data)]));
  return {
    list,
    lora: null,
    feeds: () => feeds,
    outputs: list.map(({ name }) => gradientOf(name)),
    add(outputs) {
      for (const { name, gradient } of list) addTo(gradient, outputs[gradientOf(name)] as Float32Array);
    },
  };
}

function addTo(sum: Float32Array, more: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += more[i]!;
}

/** The matrices of an adapter. They are trained as PEFT keeps them and fed as the graph stacks them. */
export function loraParameters(config: ModelConfig, updates: LoraUpdates): ParameterSet {
  const stacks = loraStacks(config, updates).filter(({ rank }) => rank > 0);
  const pairs = stacks.flatMap((stack) =>
    stack.parts
      .filter(({ rank }) => rank > 0)
      .map((part) => {
        const { a, b, scale } = updates.get(part.key)!;
        const module = stack.matrix.parts[stack.parts.indexOf(part)]!.replace(/\.weight$/, "");
        return {
          stack,
          part,
          scale,
          a: createParameter(`${module}.lora_A.weight`, [part.rank, stack.matrix.columns], a),
          b: createParameter(`${module}.lora_B.weight`, [part.rows, part.rank], b),
        };
      }),
  );
  const inputs = stacks.flatMap(({ layer, kind }) => [loraInput("a", layer, kind), loraInput("b", layer, kind)]);
  /** Zero outside the blocks, which are written anew when values have changed. */
  const fed = loraFeeds(config, updates);
  const feeds = Object.fromEntries(inputs.map((name) => [name, fed[name]!]));
  return {
    list: pairs.flatMap(({ a, b }) => [a, b]),
    lora: new Set(stacks.map(({ kind }) => kind)),
    feeds() {
      for (const { stack, part, scale, a, b } of pairs) {
        const { layer, kind, matrix, rank } = stack;
        const stackedA = feeds[loraInput("a", layer, kind)]!.data as Float32Array;
        stackedA.set(a.values, part.column * matrix.columns);
        const stackedB = feeds[loraInput("b", layer, kind)]!.data as Float32Array;
        writeBlock(b.values, part, scale, stackedB, rank);
      }
      return feeds;
    },
    outputs: inputs.map(gradientOf),
    add(outputs) {
      for (const { stack, part, scale, a, b } of pairs) {
        const { layer, kind, matrix } = stack;
        const dA = outputs[gradientOf(loraInput("a", layer, kind))] as Float32Array;
        const start = part.column * matrix.columns;
        addTo(a.gradient, dA.subarray(start, start + a.gradient.length));
        const dB = outputs[gradientOf(loraInput("b", layer, kind))] as Float32Array;
        addBlock(b.gradient, part, scale, dB, stack.rank);
      }
    },
  };
}

/** A part's B, (rows, its rank), times `scale` into its place in the stack, (rows, `rank`). */
function writeBlock(own: Float32Array, part: LoraPart, scale: number, stack: Float32Array, rank: number): void {
  for (let r = 0, i = 0; r < part.rows; r++) {
    const start = (part.row + r) * rank + part.column;
    for (let k = 0; k < part.rank; k++) stack[start + k] = own[i++]! * scale;
  }
}

/** The other way: what stands in the stack, times `scale`, onto the part's own. */
function addBlock(own: Float32Array, part: LoraPart, scale: number, stack: Float32Array, rank: number): void {
  for (let r = 0, i = 0; r < part.rows; r++) {
    const start = (part.row + r) * rank + part.column;
    for (let k = 0; k < part.rank; k++) own[i++]! += scale * stack[start + k]!;
  }
}
