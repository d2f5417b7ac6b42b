import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { createGraph } from "../../../src/graph/builder.ts";
import { headGraph } from "../../../src/graph/head.ts";
import type { GraphData } from "../../../src/graph/ir.ts";
import { encodeModel } from "../../../src/graph/proto/onnx.ts";
import { decodeGraph, prefillGraph } from "../../../src/graph/trunk.ts";
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
    const graph = prefillGraph(checkpoint, { lora: false, packed: null });
    const external = graph.initializers.filter(({ data }) => !(data instanceof Uint8Array));
    expect(external.map(({ name }) => name).sort()).toEqual(
      Object.keys(checkpoint.tensors)
        .filter((name) => name !== "lm_head.weight")
        .sort(),
    );
    expect(encodeModel(graph).length).toBeLessThan(60_000);
  });

  test("one mask per window, one table per RoPE, one cache per layer", async () => {
    const graph = prefillGraph(await golden("gemma3"), { lora: false, packed: null });
    expect(inputs(graph, "mask.")).toEqual(["mask.0", "mask.1"]);
    expect(inputs(graph, "cos.")).toHaveLength(2);
    expect(inputs(graph, "past_k.")).toHaveLength(3);
    expect(graph.outputs.map(({ name }) => name)).toContain("hidden");
  });

  test("a decode step reads each row's prompt, or the one that all share", async () => {
    const checkpoint = await golden("qwen3");
    const { kvHeads, headDim } = checkpoint.config;
    for (const [sharedPrompt, dims] of [
      [false, ["B", kvHeads, "P", headDim]],
      [true, ["P", kvHeads, headDim]],
    ] as const) {
      const graph = decodeGraph(checkpoint, { lora: false, packed: null, sharedPrompt, padRows: false });
      expect(graph.inputs.find(({ name }) => name === "prompt_k.0")?.dims).toEqual(dims);
    }
  });

  test("adapters enter all matrices of every layer, and only on demand", async () => {
    const checkpoint = await golden("qwen3");
    expect(inputs(prefillGraph(checkpoint, { lora: false, packed: null }), "lora_")).toEqual([]);
    expect(inputs(prefillGraph(checkpoint, { lora: true, packed: null }), "lora_")).toHaveLength(
      2 * 5 * checkpoint.config.layers,
    );
  });

  test("a tied head reads the embedding table", async () => {
    const names = (graph: GraphData): string[] => graph.initializers.map(({ name }) => name);
    expect(names(headGraph(await golden("llama"), null))).toContain("model.embed_tokens.weight");
    expect(names(headGraph(await golden("mistral"), null))).toContain("lm_head.weight");
  });

  test("a tensor that is missing is named", async () => {
    const checkpoint = await golden("qwen2");
    const { "model.norm.weight": _, ...tensors } = checkpoint.tensors;
    expect(() => prefillGraph({ ...checkpoint, tensors }, { lora: false, packed: null })).toThrow("model.norm.weight");
  });
});
