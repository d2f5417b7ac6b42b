import { copyFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type FakeFile, startFakeHub } from "../unit/hub/fake-hub.ts";
import { ROOT, runCli } from "./run-cli.ts";

const LLAMA = join(ROOT, "test/golden/models/llama");

let scratch = "";
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "preceptor-cli-"));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

describe("preceptor models inspect", () => {
  const env = () => ({ PRECEPTOR_DATA_DIR: join(scratch, "inspected") });

  it("describes a checkpoint, for people and as JSON, with what each precision costs", async () => {
    const { code, stdout, stderr } = await runCli(["models", "inspect", LLAMA], { env: env() });
    expect(code).toBe(0);
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^family {9}llama$/m);
    expect(stdout).toMatch(/^parameters {5}143\.8 k \(143808\)$/m);
    expect(stdout).toMatch(/^precision {6}auto is fp32 on this machine$/m);
    expect(stdout).toMatch(/^Quality of each precision against fp32, over 1024 tokens of plain text:$/m);
    expect(stdout).toMatch(/^fp32 +\d+\.\d KiB +– +– +–$/m);
    const facts = JSON.parse((await runCli(["models", "inspect", LLAMA, "--json"], { env: env() })).stdout);
    expect(facts).toMatchObject({ family: "llama", layers: 3, vocab_size: 512, tied_head: true, tempered: null });
    expect(facts).toMatchObject({ gguf_type: null, auto_precision: "fp32", quality: { reference: "fp32" } });
    const { precisions } = facts.quality as { precisions: Record<string, number | string>[] };
    expect(precisions.map(({ precision }) => precision)).toEqual(["fp32", "q8_0", "q8", "q4_0", "q4"]);
    for (const [i, each] of precisions.entries()) {
      if (i > 0)
        expect(stdout).toMatch(new RegExp(`^${each.precision} +[\\d.]+ KiB +[\\d.]+ +[−+][\\d.]+ +[\\d.]+ %$`, "m"));
    }
    const cost = precisions.map((each) => each.mean_abs_logprob_difference as number);
    expect(cost[0]).toBe(0);
    // Random weights: 8 bits cost little, 4 bits several times as much.
    for (const eight of [1, 2]) expect(cost[eight]).toBeLessThan(0.1);
    for (const four of [3, 4]) expect(cost[four]).toBeGreaterThan(2 * cost[2]!);
  });

  it("measures nothing where it is not asked to or there is no tokenizer", async () => {
    const bare = join(scratch, "bare");
    await mkdir(bare);
    for (const name of ["config.json", "model.safetensors"]) await copyFile(join(LLAMA, name), join(bare, name));
    const without = await runCli(["models", "inspect", bare], { env: env() });
    expect(without.stdout).toContain("not measured (no tokenizer)");
    const skipped = await runCli(["models", "inspect", LLAMA, "--no-quality", "--json"], { env: env() });
    expect(JSON.parse(skipped.stdout).quality).toBeNull();
    expect((await runCli(["models", "inspect", LLAMA, "--no-quality"], { env: env() })).stdout).not.toContain(
      "Quality",
    );
  });

  it("says why a directory is no model", async () => {
    const { code, stderr } = await runCli(["models", "inspect", join(ROOT, "test")]);
    expect(code).toBe(1);
    expect(stderr).toContain("no config.json");
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });

  it("says that a path does not exist", async () => {
    const { code, stderr } = await runCli(["models", "inspect", "/nowhere/model"]);
    expect(code).toBe(1);
    expect(stderr).toContain("/nowhere/model does not exist");
  });
});

describe("preceptor models pull", () => {
  it("downloads into the hub's cache with progress on stderr, and finds it again offline", async () => {
    const names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
    const files: Record<string, FakeFile> = {
      "model.safetensors": { contents: await readFile(join(LLAMA, "model.safetensors")), lfs: true },
    };
    for (const name of names) files[name] = { contents: await readFile(join(LLAMA, name)) };
    const hub = await startFakeHub(files);
    const env = { HF_HOME: join(scratch, "hf"), HF_ENDPOINT: hub.endpoint };
    try {
      const pulled = await runCli(["models", "pull", "org/model"], { env });
      expect(pulled.code).toBe(0);
      const directory = pulled.stdout.trim();
      expect(await readFile(join(directory, "config.json"))).toEqual(files["config.json"]?.contents);
      expect(pulled.stderr).toContain('"file":"model.safetensors"');
    } finally {
      await hub.close();
    }
    const facts = await runCli(["models", "inspect", "hf:org/model", "--json", "--no-quality"], {
      env: { ...env, HF_HUB_OFFLINE: "1", PRECEPTOR_DATA_DIR: join(scratch, "pulled") },
    });
    expect(JSON.parse(facts.stdout)).toMatchObject({ family: "llama", parameters: 143_808 });
    const other = await runCli(["models", "pull", "hf:org/other"], { env: { ...env, HF_HUB_OFFLINE: "1" } });
    expect(other.code).toBe(1);
    expect(other.stderr).toContain("HF_HUB_OFFLINE");
  });

  it("says how an id is written", async () => {
    const { code, stderr } = await runCli(["models", "pull", "tiny"]);
    expect(code).toBe(2);
    expect(stderr).toContain("hf:org/name");
  });
});

describe("preceptor models temper", () => {
  it("writes a copy that remembers its temperature, once", async () => {
    const out = join(scratch, "tempered");
    const args = ["models", "temper", LLAMA, "--temperature", "0.7", "--out", out];
    const first = await runCli(args);
    expect(first).toMatchObject({ code: 0, stdout: `${out}\n` });
    const config = JSON.parse(await readFile(join(out, "config.json"), "utf8"));
    expect(config.preceptor_temper).toBe(0.7);
    const again = await runCli(args);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain("exists already");
  });
});

describe("preceptor doctor", () => {
  const env = () => ({
    PRECEPTOR_DATA_DIR: join(scratch, "data"),
    PRECEPTOR_MODELS_DIRS: join(ROOT, "test/golden/models"),
    PRECEPTOR_PORT: "0",
    HF_HUB_OFFLINE: "1",
  });

  it("finds this machine and the golden models in order", async () => {
    const { code, stdout } = await runCli(["doctor", "--json"], { env: env() });
    const { ok, findings } = JSON.parse(stdout) as {
      ok: boolean;
      findings: { status: string; subject: string; found: string }[];
    };
    expect(findings.filter(({ status }) => status === "fail")).toEqual([]);
    expect({ code, ok }).toEqual({ code: 0, ok: true });
    const found = (subject: string) => findings.find((finding) => finding.subject === subject)?.found;
    expect(found("ONNX Runtime")).toBe("loads and multiplies on the CPU");
    expect(found("database")).toContain("not in use");
    expect(findings.filter(({ subject }) => subject === "model").map(({ found: text }) => text)).toContainEqual(
      expect.stringContaining("llama, 143.8 k parameters"),
    );
  });

  it("says what to do about a wrong setting and an unreachable database, and exits 1", async () => {
    const { code, stdout, stderr } = await runCli(["doctor"], {
      env: { ...env(), PRECEPTOR_HOST: "0.0.0.0", DATABASE_URL: "postgres://user:secret@127.0.0.1:9/none" },
    });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^fail {2}settings .*PRECEPTOR_API_KEY/m);
    expect(stdout).toMatch(/^fail {2}database .*127\.0\.0\.1:9: ECONNREFUSED\n *→ start it, or correct DATABASE_URL/m);
    expect(stdout + stderr).not.toContain("secret");
    expect(stderr).toContain("2 of");
  });
});
