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
      { kind: "openai", baseUrls: ["http://localhost:8000/v1"], name: "meta/llama" },
    ],
    ["openai+https://h/v1/#a%20b", { kind: "openai", baseUrls: ["https://h/v1"], name: "a b" }],
    [
      "openai+http://a:8000/v1,http://b:8000/v1#Qwen/Qwen2.5-7B-Instruct",
      { kind: "openai", baseUrls: ["http://a:8000/v1", "http://b:8000/v1"], name: "Qwen/Qwen2.5-7B-Instruct" },
    ],
    [
      "openai+http://A:80/v1/ , openai+https://[::1]:9/v1 ,http://a/V1 #a%2Fb%2C c",
      { kind: "openai", baseUrls: ["http://a/v1", "https://[::1]:9/v1", "http://a/V1"], name: "a/b, c" },
    ],
    ["openai+http://h/a%2Cb#x,y#z%zz", { kind: "openai", baseUrls: ["http://h/a%2Cb"], name: "x,y#z%zz" }],
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
    ["openai+http://host/v1?#x", /query/],
    ["openai+http://host/v1#", /no served model/],
    ["openai+#x", /the address in model is not an http or https URL/],
    ["openai+http://a/v1,http://b/v1", /no served model/],
    ["openai+http://a/v1,http://b/v1#", /no served model/],
    ["openai+http://a/v1#x,http://b/v1", /after the last address/],
    ["openai+http://a/v1#x,http://b/v1#x", /after the last address/],
    ["openai+http://a/v1#x , openai+https://b/v1#x", /after the last address/],
    ["openai+http://a,,http://b#x", /address 2 of 3 in model is not an http/],
    ["openai+http://a,#x", /address 2 of 2 in model is not an http/],
    ["openai+,http://a#x", /address 1 of 2 in model is not an http/],
    ["openai+openai+http://a,http://b#x", /address 1 of 2 in model is not an http/],
    ["openai+http://a:8000/v1,b:8000/v1#x", /address 2 of 2 in model is not an http/],
    ["openai+http://a,tinker+http://b#x", /address 2 of 2 in model is not an http/],
    ["openai+http://a,ftp://b#x", /address 2 of 2 in model is not an http/],
    ["openai+http://a,http://u:p@b,http://c#x", /address 2 of 3 in model must not contain.*credential/],
    ["openai+http://a?x,http://b#x", /address 1 of 2 in model must not have a query/],
    ["openai+http://a/v1,http://b/v1,http://A:80/v1/#x", /address 3 of 3 in model is the same as address 1;/],
    [`openai+${Array.from({ length: 65 }, (_, i) => `http://h${i}`).join(",")}#x`, /65 addresses; at most 64/],
  ])("refuses %j", (model, message) => {
    expect(() => parseModelSource(model)).toThrow(
      expect.objectContaining({ code: "invalid_value", param: "model", message: expect.stringMatching(message) }),
    );
  });

  test("64 servers are a pool; a refusal does not repeat a password", () => {
    const urls = Array.from({ length: 64 }, (_, i) => `http://h${i}:8000/v1`);
    expect(parseModelSource(`openai+${urls.join(",")}#x`)).toEqual({ kind: "openai", baseUrls: urls, name: "x" });
    for (const address of ["http://u:secret@b", "http://u:sec,ret@b", "http://u:secret@"]) {
      expect(() => parseModelSource(`openai+http://a,${address}#x`)).toThrow(
        expect.objectContaining({ message: expect.not.stringMatching(/sec|ret@/) }),
      );
    }
  });

  test("any string gives a source or a PreceptorError", () => {
    const prefixed = fc
      .tuple(
        fc.constantFrom("", "hf:", "openai+http://", "openai+http://a,http://", "tinker+https://"),
        fc.string({ unit: "binary" }),
      )
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
