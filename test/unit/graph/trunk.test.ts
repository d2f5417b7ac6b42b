import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { createGraph } from "../../../src/graph/builder.ts";
import { headGraph } from "../../../src/graph/head.ts";
import type { GraphData } from "../../../src/graph/ir.ts";
import { encodeModel } from "../../../src/graph/proto/onnx.ts";
import { trunkGraph } from "../../../src/graph/trunk.ts";
import { openCheckpoint } from "../../../src/model/open.ts";

const golden = (name: string) => openCheckpoint(fileURLToPath(new URL(`../../golden/models/${name}`, import.meta.url)));
const inputs = (graph: GraphData, prefix: string): string[] =>
  graph.inputs.map(({ name }) => name).filter((name) => name.startsWith(prefix));

test("constants with equal contents are one initializer; names are unique", () => {
  const g = createGraph("g");
  const [a, b, c] = [g.int64s([1, 2]), g.int64s([1, 2]), g.int64s([2, 1])];
  expect(a).toEqual(b);
  expect(c).not.toEqual(a);
  const x = g.input("x", "float", [2]);
  const names = [g.node("Neg", [x]), g.node("Neg", [x])].map(({ name }) => name);
  expect(new Set(names).size).toBe(2);
  expect(g.build().initializers).toHaveLength(2);
});

describe("graphs of the golden checkpoints", () => {
  test("weights stay in their files: the protobuf holds offsets only", async () => {
    const checkpoint = await golden("mistral");
    const graph = trunkGraph(checkpoint, { lora: false, quantised: new Map() });
    const external = graph.initializers.filter(({ data }) => !(data instanceof Uint8Array));
    expect(external.map(({ name }) => name).sort()).toEqual(
      Object.keys(checkpoint.tensors)
        .filter((name) => name !== "lm_head.weight")
        .sort(),
    );
    expect(encodeModel(graph).length).toBeLessThan(60_000);
  });

  test("one mask per window, one table per RoPE, one cache per layer", async () => {
    const graph = trunkGraph(await golden("gemma3"), { lora: false, quantised: new Map() });
    expect(inputs(graph, "mask.")).toEqual(["mask.0", "mask.1"]);
    expect(inputs(graph, "cos.")).toHaveLength(2);
    expect(inputs(graph, "past_k.")).toHaveLength(3);
    expect(graph.outputs.map(({ name }) => name)).toContain("hidden");
  });

  test("adapters enter all seven projections of every layer, and only on demand", async () => {
    const checkpoint = await golden("qwen3");
    expect(inputs(trunkGraph(checkpoint, { lora: false, quantised: new Map() }), "lora_")).toEqual([]);
    expect(inputs(trunkGraph(checkpoint, { lora: true, quantised: new Map() }), "lora_")).toHaveLength(
      2 * 7 * checkpoint.config.layers,
    );
  });

  test("a tied head reads the embedding table", async () => {
    const names = (graph: GraphData): string[] => graph.initializers.map(({ name }) => name);
    expect(names(headGraph(await golden("llama"), new Map()))).toContain("model.embed_tokens.weight");
    expect(names(headGraph(await golden("mistral"), new Map()))).toContain("lm_head.weight");
  });

  test("a tensor that is missing is named", async () => {
    const checkpoint = await golden("qwen2");
    const { "model.norm.weight": _, ...tensors } = checkpoint.tensors;
    expect(() => trunkGraph({ ...checkpoint, tensors }, { lora: false, quantised: new Map() })).toThrow(
      "model.norm.weight",
    );
  });
});
