import { open } from "node:fs/promises";
import type { Checkpoint } from "../../src/model/checkpoint.ts";

/**
 * The slow twin: a llama written as its formulas, one position and one head at a time, in double precision, without a
 * cache, a graph or a batch. Returns logits (T, V).
 */
export async function naiveLogits(checkpoint: Checkpoint, ids: readonly number[]): Promise<number[][]> {
  const { config } = checkpoint;
  const { heads, kvHeads, headDim, rmsNormEps } = config;
  const table = await matrix(checkpoint, "model.embed_tokens.weight");
  const x = ids.map((id) => [...table[id]!]);
  for (let l = 0; l < config.layers; l++) {
    const named = (part: string): Promise<number[][]> => matrix(checkpoint, `model.layers.${l}.${part}.weight`);
    const [q, k, v, o] = await Promise.all(["q", "k", "v", "o"].map((p) => named(`self_attn.${p}_proj`)));
    const [gate, up, down] = await Promise.all(["gate", "up", "down"].map((p) => named(`mlp.${p}_proj`)));
    const [[before], [after]] = (await Promise.all([named("input_layernorm"), named("post_attention_layernorm")])) as [
      number[][],
      number[][],
    ];
    const kind = config.layerKinds[l]!;
    const frequencies = config.ropes[kind.rope]!.inverseFrequencies;
    const normed = x.map((row) => norm(row, before!, rmsNormEps));
    const head = (row: number[], h: number): number[] => row.slice(h * headDim, (h + 1) * headDim);
    const keys = normed
      .map((row) => apply(k!, row))
      .map((row, t) => range(kvHeads).map((h) => rotate(head(row, h), t, frequencies)));
    const values = normed.map((row) => apply(v!, row)).map((row) => range(kvHeads).map((h) => head(row, h)));
    for (const [t, row] of normed.entries()) {
      const queries = apply(q!, row);
      const mixed = range(heads).flatMap((h) => {
        const query = rotate(head(queries, h), t, frequencies);
        const source = Math.floor(h / (heads / kvHeads));
        const first = kind.window === null ? 0 : Math.max(0, t - kind.window + 1);
        const seen = range(t + 1).slice(first);
        const weights = softmax(seen.map((j) => dot(query, keys[j]![source]!) * config.attentionScale));
        return range(headDim).map((d) => seen.reduce((sum, j, i) => sum + weights[i]! * values[j]![source]![d]!, 0));
      });
      addTo(x[t]!, apply(o!, mixed));
    }
    for (const row of x) {
      const inner = norm(row, after!, rmsNormEps);
      const [g, u] = [apply(gate!, inner), apply(up!, inner)];
      addTo(
        row,
        apply(
          down!,
          g.map((value, i) => (value / (1 + Math.exp(-value))) * u[i]!),
        ),
      );
    }
  }
  const [final] = await matrix(checkpoint, "model.norm.weight");
  const output = config.tiedHead ? table : await matrix(checkpoint, "lm_head.weight");
  return x.map((row) => apply(output, norm(row, final!, rmsNormEps)));
}

const range = (n: number): number[] => [...new Array(n).keys()];
const dot = (a: number[], b: number[]): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const apply = (w: number[][], x: number[]): number[] => w.map((row) => dot(row, x));
function addTo(x: number[], y: number[]): void {
  for (const [i, value] of y.entries()) x[i]! += value;
}

function norm(x: number[], weight: number[], eps: number): number[] {
  const scale = 1 / Math.sqrt(dot(x, x) / x.length + eps);
  return x.map((value, i) => value * scale * weight[i]!);
}

export function softmax(scores: number[]): number[] {
  const top = Math.max(...scores);
  const powers = scores.map((s) => Math.exp(s - top));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / total);
}

function rotate(x: number[], position: number, frequencies: Float32Array): number[] {
  const half = x.length / 2;
  return x.map((value, i) => {
    const angle = position * frequencies[i % half]!;
    const other = i < half ? -x[i + half]! : x[i - half]!;
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

/** F32 tensors only; a vector is a matrix of one row. */
async function matrix(checkpoint: Checkpoint, name: string): Promise<number[][]> {
  const { path, offset, bytes, shape } = checkpoint.tensors[name]!;
  const data = new Uint8Array(bytes);
  const file = await open(path, "r");
  await file.read(data, 0, bytes, offset);
  await file.close();
  const floats = new Float32Array(data.buffer);
  const columns = shape[shape.length - 1]!;
  return range(floats.length / columns).map((row) => [...floats.subarray(row * columns, (row + 1) * columns)]);
}
