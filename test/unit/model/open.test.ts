import { copyFile, cp, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import type { TensorLocation } from "../../../src/model/checkpoint.ts";
import { inspectModel } from "../../../src/model/inspect.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { type TensorToWrite, writeSafetensors } from "../../../src/model/safetensors-write.ts";
import { GOLDEN, GOLDEN_NAMES, LLAMA_CONFIG, temporaryDirectory, tensorsFor, writeCheckpoint } from "./fixture.ts";

const refusal = (code: string, message: RegExp) => ({ code, message: expect.stringMatching(message) });

describe("golden checkpoints", () => {
  test.each(GOLDEN_NAMES)("%s opens", async (name) => {
    const checkpoint = await openCheckpoint(path.join(GOLDEN, name));
    expect(checkpoint.eosIds).toEqual([2]);
    expect(checkpoint.weightsHash).toMatch(/^sha256:[0-9a-f]{64}$/);
    const { config, tensors } = checkpoint;
    expect(config.tiedHead).toBe(tensors["lm_head.weight"] === undefined);
    expect(tensors[`model.layers.${config.layers - 1}.mlp.down_proj.weight`]?.shape).toEqual([
      config.hiddenSize,
      config.intermediateSize,
    ]);
  });

  test("parameters and bytes are those of the files", async () => {
    const index = JSON.parse(await readFile(path.join(GOLDEN, "mistral/model.safetensors.index.json"), "utf8")) as {
      metadata: { total_parameters: number; total_size: number };
    };
    const mistral = await openCheckpoint(path.join(GOLDEN, "mistral"));
    expect(mistral.parameters).toBe(index.metadata.total_parameters);
    expect(new Set(Object.values(mistral.tensors).map((tensor) => path.basename(tensor.path))).size).toBe(2);
    expect(mistral.weightBytes).toBeGreaterThan(index.metadata.total_size);
  });

  test("their hashes differ", async () => {
    const hashes = await Promise.all(
      GOLDEN_NAMES.map(async (name) => (await openCheckpoint(path.join(GOLDEN, name))).weightsHash),
    );
    expect(new Set(hashes).size).toBe(GOLDEN_NAMES.length);
  });

  test("inspect", async () => {
    const facts = await inspectModel(path.join(GOLDEN, "qwen3"));
    expect(facts).toMatchObject({
      family: "qwen3",
      heads: 4,
      kv_heads: 2,
      head_dim: 32,
      tied_head: true,
      parameters: 143808,
      dtypes: { F32: 24 },
      tokenizer: true,
      chat_template: true,
      tempered: null,
      memory_fp32: { weights: 143808 * 4, cache_per_token: 2 * 2 * 2 * 32 * 4 },
    });
    expect((await inspectModel(path.join(GOLDEN, "gemma3"))).sliding_window).toEqual({ width: 16, layers: 2 });
  });
});

describe("identity", () => {
  test("a copy has the same hash; other weights of the same shapes have another", async () => {
    const first = await openCheckpoint(await writeCheckpoint());
    const copy = path.join(await temporaryDirectory(), "copy");
    await cp(first.directory, copy, { recursive: true });
    expect((await openCheckpoint(copy)).weightsHash).toBe(first.weightsHash);
    const tensors = tensorsFor(LLAMA_CONFIG);
    (tensors.at(-1)!.data as Uint8Array)[1]! ^= 1;
    expect((await openCheckpoint(await writeCheckpoint({ tensors }))).weightsHash).not.toBe(first.weightsHash);
  });
});

describe("config against weights", () => {
  const without = (name: string) => tensorsFor(LLAMA_CONFIG).filter((tensor) => tensor.name !== name);
  const extra = (name: string, shape: number[] = [8]): TensorToWrite => ({
    name,
    dtype: "F32",
    shape,
    data: new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
  });

  test("another shape names tensor, found and expected shape", async () => {
    const directory = await writeCheckpoint();
    await writeFile(path.join(directory, "config.json"), JSON.stringify({ ...LLAMA_CONFIG, intermediate_size: 16 }));
    await expect(openCheckpoint(directory)).rejects.toMatchObject(
      refusal("invalid_checkpoint", /layers\.0\.mlp\.gate_proj\.weight has shape \[12, 8\].*\[16, 8\]/),
    );
  });

  test("a missing tensor and a missing layer", async () => {
    await expect(
      openCheckpoint(await writeCheckpoint({ tensors: without("model.norm.weight") })),
    ).rejects.toMatchObject(refusal("invalid_checkpoint", /model\.norm\.weight of shape \[8\].*missing/));
    const directory = await writeCheckpoint();
    await writeFile(path.join(directory, "config.json"), JSON.stringify({ ...LLAMA_CONFIG, num_hidden_layers: 3 }));
    await expect(openCheckpoint(directory)).rejects.toMatchObject(refusal("invalid_checkpoint", /layers\.2\./));
  });

  test("a layer too many, or a bias nobody asked for, is not dropped silently", async () => {
    const directory = await writeCheckpoint();
    await writeFile(path.join(directory, "config.json"), JSON.stringify({ ...LLAMA_CONFIG, num_hidden_layers: 1 }));
    await expect(openCheckpoint(directory)).rejects.toThrow(/layers\.1\..*does not ask for/);
    const tensors = [...tensorsFor(LLAMA_CONFIG), extra("model.layers.0.self_attn.q_proj.bias")];
    await expect(openCheckpoint(await writeCheckpoint({ tensors }))).rejects.toThrow(/q_proj\.bias.*does not ask for/);
  });

  test("derived buffers and foreign towers are ignored", async () => {
    const tensors = [
      ...tensorsFor(LLAMA_CONFIG),
      extra("model.layers.0.self_attn.rotary_emb.inv_freq", [2]),
      extra("vision_tower.patch.weight"),
      extra("value_head.weight"),
    ];
    const checkpoint = await openCheckpoint(await writeCheckpoint({ tensors }));
    expect(Object.keys(checkpoint.tensors)).toHaveLength(tensorsFor(LLAMA_CONFIG).length);
  });

  test("integer weights, and the tensors of quantisers", async () => {
    const integer = tensorsFor(LLAMA_CONFIG).map((tensor) =>
      tensor.name === "model.norm.weight" ? { ...tensor, dtype: "I32" as const } : tensor,
    );
    await expect(openCheckpoint(await writeCheckpoint({ tensors: integer }))).rejects.toMatchObject(
      refusal("unsupported_checkpoint", /model\.norm\.weight is I32/),
    );
    const name = "model.layers.0.self_attn.q_proj";
    const packed = [...without(`${name}.weight`), extra(`${name}.qweight`)];
    await expect(openCheckpoint(await writeCheckpoint({ tensors: packed }))).rejects.toMatchObject(
      refusal("unsupported_checkpoint", /qweight.*quantised/),
    );
  });

  test("the head: tied where the file lacks it, unless the config denies it", async () => {
    const { tie_word_embeddings: _, ...silent } = LLAMA_CONFIG;
    const headless = without("lm_head.weight");
    const tied = await openCheckpoint(await writeCheckpoint({ config: silent, tensors: headless }));
    expect(tied.config.tiedHead).toBe(true);
    expect(tied.parameters).toBe(
      (await openCheckpoint(await writeCheckpoint({ config: silent, tensors: tensorsFor(LLAMA_CONFIG) }))).parameters -
        80,
    );
    const denied = writeCheckpoint({ config: LLAMA_CONFIG, tensors: headless });
    await expect(openCheckpoint(await denied)).rejects.toMatchObject(
      refusal("invalid_checkpoint", /tie_word_embeddings: false.*lm_head/),
    );
  });

  test("a stored head beside a tied one must be the embedding", async () => {
    const config = { ...LLAMA_CONFIG, tie_word_embeddings: true };
    const tensors = tensorsFor(config);
    const embedding = tensors.find(({ name }) => name === "model.embed_tokens.weight")!;
    const equal = await writeCheckpoint({ config, tensors: [...tensors, { ...embedding, name: "lm_head.weight" }] });
    const checkpoint = await openCheckpoint(equal);
    expect(checkpoint.tensors["lm_head.weight"]).toBeUndefined();
    const other = await writeCheckpoint({ config, tensors: [...tensors, extra("lm_head.weight", [10, 8])] });
    await expect(openCheckpoint(other)).rejects.toThrow(/lm_head\.weight differs/);
  });

  test.each([
    ["model.language_model.", "lm_head."],
    ["language_model.model.", "language_model.lm_head."],
    ["", "lm_head."],
  ])("tensors under %j carry their plain names", async (body, head) => {
    const tensors = tensorsFor(LLAMA_CONFIG).map((tensor) => ({
      ...tensor,
      name: tensor.name.replace(/^lm_head\./, head).replace(/^model\./, body),
    }));
    const checkpoint = await openCheckpoint(await writeCheckpoint({ tensors }));
    expect(Object.keys(checkpoint.tensors).sort()).toEqual(
      tensorsFor(LLAMA_CONFIG)
        .map(({ name }) => name)
        .sort(),
    );
  });
});

describe("what is not a checkpoint", () => {
  test("no directory, a file, an empty or impossible name", async () => {
    const directory = await temporaryDirectory();
    await writeFile(path.join(directory, "file"), "");
    for (const bad of [path.join(directory, "absent"), path.join(directory, "file"), "", "a\0b", "x".repeat(5000)]) {
      await expect(openCheckpoint(bad)).rejects.toMatchObject({ code: "model_source_not_found" });
    }
  });

  test("each incomplete directory gets its own hint", async () => {
    const directory = await temporaryDirectory();
    const put = (name: string, text: string) => writeFile(path.join(directory, name), text);
    await expect(openCheckpoint(directory)).rejects.toMatchObject(refusal("invalid_checkpoint", /no config\.json/));
    await put("x.gguf", "");
    await expect(openCheckpoint(directory)).rejects.toThrow(/for GGUF give the file itself: x\.gguf/);
    await put("adapter_config.json", "{}");
    await expect(openCheckpoint(directory)).rejects.toThrow(/holds an adapter/);
    await put("config.json", "{");
    await expect(openCheckpoint(directory)).rejects.toThrow(/config\.json is not valid JSON/);
    await put("config.json", JSON.stringify(LLAMA_CONFIG));
    await expect(openCheckpoint(directory)).rejects.toThrow(/neither model\.safetensors nor/);
    await put("pytorch_model.bin", "");
    await expect(openCheckpoint(directory)).rejects.toMatchObject(
      refusal("unsupported_checkpoint", /convert it to safetensors/),
    );
    await put("model.safetensors", "version https://git-lfs.github.com/spec/v1");
    await expect(openCheckpoint(directory)).rejects.toThrow(/Git LFS/);
    await put("generation_config.json", "[]");
    await expect(openCheckpoint(directory)).rejects.toThrow(/generation_config\.json/);
  });

  test("config.json that is a directory or nested beyond reason", async () => {
    const directory = await writeCheckpoint();
    const file = path.join(directory, "config.json");
    await writeFile(file, `{"model_type":"llama","layer_types":${"[".repeat(100_000)}${"]".repeat(100_000)}}`);
    await expect(openCheckpoint(directory)).rejects.toMatchObject({ code: "invalid_checkpoint" });
    await rm(file);
    await mkdir(file);
    await expect(openCheckpoint(directory)).rejects.toThrow(/not a regular file/);
  });
});

describe("shards", () => {
  async function sharded(edit: (map: Record<string, unknown>) => unknown = (map) => ({ weight_map: map })) {
    const directory = await writeCheckpoint();
    await rm(path.join(directory, "model.safetensors"));
    const tensors = tensorsFor(LLAMA_CONFIG);
    const map: Record<string, unknown> = {};
    for (const [i, part] of [tensors.slice(0, 5), tensors.slice(5)].entries()) {
      const name = `model-0000${i + 1}-of-00002.safetensors`;
      await writeSafetensors(path.join(directory, name), part);
      for (const tensor of part) map[tensor.name] = name;
    }
    await writeFile(path.join(directory, "model.safetensors.index.json"), JSON.stringify(edit(map)));
    return directory;
  }

  test("open as one", async () => {
    const checkpoint = await openCheckpoint(await sharded());
    expect(Object.keys(checkpoint.tensors)).toHaveLength(tensorsFor(LLAMA_CONFIG).length);
  });

  test.each([
    [
      "a missing file",
      (map: Record<string, unknown>) => ({ weight_map: { ...map, x: "absent.safetensors" } }),
      /absent\.safetensors is missing/,
    ],
    [
      "a file above the directory",
      (map: Record<string, unknown>) => ({ weight_map: { ...map, x: "../model.safetensors" } }),
      /not the name of a file/,
    ],
    [
      "an absolute file",
      (map: Record<string, unknown>) => ({ weight_map: { ...map, x: "/etc/passwd" } }),
      /not the name of a file/,
    ],
    [
      "the directory itself",
      (map: Record<string, unknown>) => ({ weight_map: { ...map, x: ".." } }),
      /not the name of a file/,
    ],
    [
      "a tensor that is elsewhere",
      (map: Record<string, unknown>) => ({
        weight_map: { ...map, "model.norm.weight": "model-00001-of-00002.safetensors" },
      }),
      /says that model\.norm\.weight is in/,
    ],
    ["a number as a file", (map: Record<string, unknown>) => ({ weight_map: { ...map, x: 3 } }), /not a file name/],
    ["no map", () => ({}), /no weight_map/],
    ["an empty map", () => ({ weight_map: {} }), /names no tensors/],
  ])("an index with %s", async (_name, edit, message) => {
    await expect(openCheckpoint(await sharded(edit))).rejects.toMatchObject(refusal("invalid_checkpoint", message));
  });

  test("a tensor in two files", async () => {
    const directory = await sharded();
    const part = path.join(directory, "model-00001-of-00002.safetensors");
    await writeSafetensors(part, [...tensorsFor(LLAMA_CONFIG).slice(0, 5), tensorsFor(LLAMA_CONFIG)[6]!]);
    await expect(openCheckpoint(directory)).rejects.toThrow(/occurs in two weight files/);
  });
});

describe("links", () => {
  test("the hub's cache layout works, under its root and by itself", async () => {
    const root = await temporaryDirectory();
    const repository = path.join(root, "hub/models--org--name");
    const snapshot = path.join(repository, "snapshots/abc");
    await writeCheckpoint({ directory: snapshot });
    await mkdir(path.join(repository, "blobs"));
    for (const [i, name] of (await readdir(snapshot)).entries()) {
      await rename(path.join(snapshot, name), path.join(repository, `blobs/${i}`));
      await symlink(`../../blobs/${i}`, path.join(snapshot, name));
    }
    const checkpoint = await openCheckpoint(snapshot, { allowedRoots: [root] });
    expect((checkpoint.tensors["model.norm.weight"] as TensorLocation).path).toContain(`${repository}/blobs/`);
    expect((await openCheckpoint(snapshot)).weightsHash).toBe(checkpoint.weightsHash);
    await expect(openCheckpoint(snapshot, { allowedRoots: [snapshot] })).rejects.toMatchObject({
      code: "model_source_not_allowed",
    });
    await expect(openCheckpoint(snapshot, { allowedRoots: [] })).rejects.toMatchObject({
      code: "model_source_not_allowed",
    });
  });

  test("a weight file, a config or a directory that leads outside is refused", async () => {
    const root = await temporaryDirectory();
    const outside = await writeCheckpoint();
    for (const name of ["model.safetensors", "config.json"]) {
      const inside = await writeCheckpoint({ directory: path.join(root, name) });
      await rm(path.join(inside, name));
      await symlink(path.join(outside, name), path.join(inside, name));
      const code = "model_source_not_allowed";
      await expect(openCheckpoint(inside, { allowedRoots: [root] })).rejects.toMatchObject({ code });
      await expect(openCheckpoint(inside)).rejects.toMatchObject({ code });
    }
    await symlink(outside, path.join(root, "link"));
    await expect(openCheckpoint(path.join(root, "link"), { allowedRoots: [root] })).rejects.toMatchObject({
      code: "model_source_not_allowed",
    });
    await expect(
      openCheckpoint(path.join(root, "link"), { allowedRoots: [`${outside.slice(0, -1)}`] }),
    ).rejects.toMatchObject({ code: "model_source_not_allowed" });
  });

  test("a link to nowhere and a link to itself are missing files", async () => {
    const directory = await writeCheckpoint();
    const file = path.join(directory, "model.safetensors");
    await copyFile(file, path.join(directory, "kept"));
    for (const target of ["nowhere", "model.safetensors"]) {
      await rm(file, { force: true });
      await symlink(target, file);
      await expect(openCheckpoint(directory)).rejects.toThrow(/model\.safetensors is missing/);
    }
  });
});
