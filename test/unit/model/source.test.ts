import { mkdir, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { PreceptorError } from "../../../src/errors.ts";
import { parseModelSource, resolveLocalModel } from "../../../src/model/source.ts";
import { temporaryDirectory } from "./fixture.ts";

describe("parseModelSource", () => {
  test.each([
    ["golden/llama", { kind: "path", path: "golden/llama" }],
    ["/models/x.gguf", { kind: "path", path: "/models/x.gguf" }],
    ["a name with spaces", { kind: "path", path: "a name with spaces" }],
    ["hf:Qwen/Qwen2.5-0.5B", { kind: "hf", repo: "Qwen/Qwen2.5-0.5B", revision: null }],
    ["hf:a/b@refs/pr/3", { kind: "hf", repo: "a/b", revision: "refs/pr/3" }],
    [
      "openai+http://localhost:8000/v1#meta/llama",
      { kind: "openai", baseUrl: "http://localhost:8000/v1", name: "meta/llama" },
    ],
    ["openai+https://h/v1/#a%20b", { kind: "openai", baseUrl: "https://h/v1", name: "a b" }],
    ["tinker+http://h:1#base", { kind: "tinker", baseUrl: "http://h:1", baseModel: "base" }],
  ])("%s", (model, source) => {
    expect(parseModelSource(model)).toEqual(source);
  });

  test.each([
    ["", /empty/],
    ["  ", /empty/],
    ["a\0b", /control/],
    ["x".repeat(5000), /4096/],
    ["hf:qwen", /hub id/],
    ["hf:../..", /hub id/],
    ["hf:a/b/c", /hub id/],
    ["hf:a/..", /hub id/],
    ["hf:a--b/c", /hub id/],
    ["hf:a/b@../x", /revision/],
    ["hf:a/b@", /revision/],
    ["s3://bucket/x", /not understood/],
    ["http://host/x", /not understood/],
    ["openai+ftp://host#x", /http or https/],
    ["openai+http://host/v1", /no served model/],
    ["openai+http://u:p@host/v1#x", /credential/],
    ["openai+http://host/v1?key=1#x", /query/],
    ["tinker+nonsense", /http or https/],
  ])("refuses %j", (model, message) => {
    expect(() => parseModelSource(model)).toThrow(
      expect.objectContaining({ code: "invalid_value", param: "model", message: expect.stringMatching(message) }),
    );
  });

  test("any string gives a source or a PreceptorError", () => {
    const prefixed = fc
      .tuple(fc.constantFrom("", "hf:", "openai+http://", "tinker+https://"), fc.string({ unit: "binary" }))
      .map((parts) => parts.join(""));
    fc.assert(
      fc.property(prefixed, (model) => {
        try {
          expect(parseModelSource(model).kind).toMatch(/^(path|hf|openai|tinker)$/);
        } catch (error) {
          expect(error).toBeInstanceOf(PreceptorError);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe("resolveLocalModel", () => {
  let root: string;
  let first: string;
  let second: string;
  beforeEach(async () => {
    root = await temporaryDirectory();
    first = path.join(root, "first");
    second = path.join(root, "second");
    for (const directory of ["first/a", "second/b", "second/org/c", "outside/x", "first-not/y"]) {
      await mkdir(path.join(root, directory), { recursive: true });
      await writeFile(path.join(root, directory, "config.json"), "{}");
    }
    await writeFile(path.join(second, "m.gguf"), "GGUF");
  });
  const resolve = (model: string) => resolveLocalModel(model, [first, second]);

  test("relative to any models directory, or absolute", async () => {
    expect(await resolve("a")).toEqual({ kind: "directory", path: path.join(first, "a") });
    expect(await resolve("org/c/")).toEqual({ kind: "directory", path: path.join(second, "org/c") });
    expect(await resolve(path.join(second, "b"))).toEqual({ kind: "directory", path: path.join(second, "b") });
    expect(await resolve("m.gguf")).toEqual({ kind: "gguf", path: path.join(second, "m.gguf") });
    expect(await resolve("x/../a")).toEqual({ kind: "directory", path: path.join(first, "a") });
  });

  test("through a link from one models directory to another, and through a linked models directory", async () => {
    await symlink(path.join(second, "b"), path.join(first, "to-b"));
    expect(await resolve("to-b")).toEqual({ kind: "directory", path: path.join(second, "b") });
    await symlink(first, path.join(root, "alias"));
    expect(await resolveLocalModel("a", [path.join(root, "alias")])).toEqual({
      kind: "directory",
      path: path.join(first, "a"),
    });
    expect(await resolveLocalModel(path.join(root, "alias/a"), [first])).toEqual({
      kind: "directory",
      path: path.join(first, "a"),
    });
  });

  test("a directory that holds one GGUF file stands for it; several must be named; a link out is refused", async () => {
    const directory = path.join(first, "quantised");
    await mkdir(directory);
    await writeFile(path.join(directory, "q4.gguf"), "GGUF");
    expect(await resolve("quantised")).toEqual({ kind: "gguf", path: path.join(directory, "q4.gguf") });
    await writeFile(path.join(directory, "q8.gguf"), "GGUF");
    await expect(resolve("quantised")).rejects.toThrow(/2 GGUF files; name one of them: q4\.gguf, q8\.gguf/);
    await mkdir(path.join(first, "leak"));
    await writeFile(path.join(root, "outside/secret.gguf"), "GGUF");
    await symlink(path.join(root, "outside/secret.gguf"), path.join(first, "leak/m.gguf"));
    await expect(resolve("leak")).rejects.toMatchObject({ code: "model_source_not_allowed" });
    await expect(resolve("leak/m.gguf")).rejects.toMatchObject({ code: "model_source_not_allowed" });
  });

  test("what leads outside is refused, in the same words whether it exists or not", async () => {
    await symlink(path.join(root, "outside/x"), path.join(first, "escape"));
    const outside = [
      "../outside/x",
      "../../etc",
      path.join(root, "outside/x"),
      "/etc/passwd",
      "/nonexistent",
      "../nonexistent",
      "escape",
      path.join(root, "first-not/y"),
      path.join(first, "../outside/x"),
    ];
    for (const model of outside) {
      await expect(resolve(model), model).rejects.toMatchObject({
        code: "model_source_not_allowed",
        param: "model",
        message: `${model} lies outside the models directories; move it into one of them or add its directory to PRECEPTOR_MODELS_DIRS`,
      });
    }
  });

  test("what does not exist inside says where it looked", async () => {
    for (const model of ["absent", path.join(first, "absent"), "a/config.json/deeper"]) {
      await expect(resolve(model), model).rejects.toMatchObject({
        code: "model_source_not_found",
        message: `${model} does not exist; looked in the directories of PRECEPTOR_MODELS_DIRS`,
      });
    }
    await expect(resolve("a/config.json")).rejects.toThrow(/neither a directory nor a \.gguf/);
    for (const model of ["", "a\0", "y".repeat(5000)]) {
      await expect(resolve(model)).rejects.toMatchObject({ code: "model_source_not_found" });
    }
    await expect(resolveLocalModel("a", [])).rejects.toMatchObject({ code: "model_source_not_found" });
    await expect(resolveLocalModel("a", [path.join(root, "missing")])).rejects.toMatchObject({
      code: "model_source_not_found",
    });
  });
});
