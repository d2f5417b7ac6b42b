import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Machine } from "../../src/config/derived.ts";
import { type Config, findCredential, loadConfig } from "../../src/config.ts";

const directory = mkdtempSync(join(tmpdir(), "preceptor-config-"));
afterAll(() => rmSync(directory, { recursive: true }));
const machine: Machine = { cores: 4, memoryBytes: 10e9, terminal: false, home: join(directory, "home"), cwd: "/srv" };
const load = (env: Record<string, string | undefined>, on: Partial<Machine> = {}): Config =>
  loadConfig(env, { machine: { ...machine, ...on } });
const file = (name: string, text: string): string => {
  writeFileSync(join(directory, name), text);
  return join(directory, name);
};

test("the defaults work on a laptop", () => {
  expect(load({})).toMatchObject({
    host: "127.0.0.1",
    port: 8080,
    dataDir: "/srv/data",
    artifacts: "file:/srv/data/artifacts",
    modelsDirs: ["/srv/data/models", "/srv/models"],
    databaseUrl: undefined,
    apiKey: undefined,
    hub: { cacheDir: join(machine.home, ".cache/huggingface/hub"), endpoint: "https://huggingface.co", offline: false },
    allowedHosts: [],
    threads: 4,
    modelMemoryBytes: 7e9,
    log: { level: "info", format: "json" },
    warnings: [],
  });
  expect(load({}, { terminal: true }).log.format).toBe("pretty");
});

test("every setting can be set; empty counts as unset", () => {
  expect(
    load({
      PRECEPTOR_HOST: "::1",
      PRECEPTOR_PORT: "0",
      PRECEPTOR_DATA_DIR: "/var/lib/preceptor",
      PRECEPTOR_ARTIFACTS: "file:blobs",
      PRECEPTOR_MODELS_DIRS: "/models:more::",
      DATABASE_URL: "postgres://me@db/preceptor",
      PRECEPTOR_ALLOWED_HOSTS: "gpu1:8000, gpu2",
      PRECEPTOR_THREADS: "2",
      PRECEPTOR_LOG_LEVEL: "debug",
      PRECEPTOR_LOG_FORMAT: "pretty",
      PRECEPTOR_CORS_ORIGINS: "https://app.example.org",
      PRECEPTOR_METRICS_OPEN: "1",
      PRECEPTOR_MAX_BODY_MB: "1",
      PRECEPTOR_SHUTDOWN_GRACE_S: "3",
      PRECEPTOR_URL: "http://other:8080/",
      HF_HOME: "/hf",
      HF_TOKEN: "hf_x",
      HF_ENDPOINT: "http://mirror/",
      HF_HUB_OFFLINE: "true",
      PRECEPTOR_API_KEY: "",
    }),
  ).toMatchObject({
    host: "::1",
    port: 0,
    dataDir: "/var/lib/preceptor",
    artifacts: "file:/srv/blobs",
    modelsDirs: ["/models", "/srv/more"],
    databaseUrl: "postgres://me@db/preceptor",
    apiKey: undefined,
    hub: { token: "hf_x", cacheDir: "/hf/hub", endpoint: "http://mirror", offline: true },
    allowedHosts: ["gpu1:8000", "gpu2"],
    threads: 2,
    log: { level: "debug", format: "pretty" },
    http: {
      corsOrigins: ["https://app.example.org"],
      metricsOpenOnLoopback: true,
      maxBodyBytes: 1_048_576,
      shutdownGraceMs: 3_000,
    },
    serverUrl: "http://other:8080",
  });
});

test.each([
  ["2GB", 2e9],
  ["1.5 GiB", 1.5 * 2 ** 30],
  ["512m", 512e6],
  ["50%", 5e9],
  ["123456", 123_456],
])("a memory budget of %s is %d bytes", (given, bytes) => {
  expect(load({ PRECEPTOR_MODEL_MEMORY: given }).modelMemoryBytes).toBe(bytes);
});

test("every wrong variable is named at once", () => {
  const message = (() => {
    try {
      load({
        PRECEPTOR_PORT: "http",
        PRECEPTOR_THREADS: "0",
        PRECEPTOR_MODEL_MEMORY: "lots",
        PRECEPTOR_LOG_LEVEL: "loud",
        PRECEPTOR_ARTIFACTS: "/blobs",
        PRECEPTOR_METRICS_OPEN: "perhaps",
        PRECEPTOR_CORS_ORIGINS: "app.example.org",
        DATABASE_URL: "mysql://root:hunter2@db",
        HF_ENDPOINT: "ftp://hub",
      });
      return "";
    } catch (error) {
      return (error as Error).message;
    }
  })();
  expect(message.split("\n")).toHaveLength(10);
  expect(message).toContain("PRECEPTOR_PORT: must be a whole number from 0 to 65535");
  expect(message).toContain("PRECEPTOR_LOG_LEVEL: must be one of fatal, error, warn, info, debug, trace, silent");
  expect(message).toContain("DATABASE_URL: must be a postgres:// URL");
  expect(message).not.toContain("hunter2");
});

describe("secrets", () => {
  test("come from the variable or from a file", () => {
    expect(load({ PRECEPTOR_API_KEY: "a-key-long-enough" }).apiKey).toBe("a-key-long-enough");
    const key = file("key", "a-key-from-a-file\n");
    expect(load({ PRECEPTOR_API_KEY_FILE: key }).apiKey).toBe("a-key-from-a-file");
    const config = load({ PRECEPTOR_CREDENTIAL_FLEET_A: "s1", PRECEPTOR_CREDENTIAL_HUB_FILE: file("hub", " s2 ") });
    expect(findCredential(config, "fleet-a")).toBe("s1");
    expect(findCredential(config, "HUB")).toBe("s2");
    expect(findCredential(config, "other")).toBeUndefined();
  });

  test("that cannot be read are refused by name", () => {
    const empty = file("empty", "\n");
    expect(() => load({ PRECEPTOR_API_KEY_FILE: "/no/such/file" })).toThrow(
      "PRECEPTOR_API_KEY_FILE: /no/such/file cannot be read (ENOENT)",
    );
    expect(() => load({ PRECEPTOR_CREDENTIAL_X_FILE: empty })).toThrow("PRECEPTOR_CREDENTIAL_X_FILE:");
    expect(() => load({ PRECEPTOR_API_KEY: "a", PRECEPTOR_API_KEY_FILE: empty })).toThrow("keep one of them");
    expect(() => load({ PRECEPTOR_API_KEY: "two words" })).toThrow("white space");
  });

  test("the hub's token file is found where its own tools leave it", () => {
    const token = file("token", "hf_stored\n");
    expect(load({ HF_TOKEN_PATH: token }).hub.token).toBe("hf_stored");
    expect(load({ HF_HOME: directory }).hub.token).toBe("hf_stored");
    expect(load({ HF_HOME: directory, HF_TOKEN: "hf_env" }).hub.token).toBe("hf_env");
  });
});

describe("listening beyond this machine", () => {
  test("needs a key", () => {
    for (const host of ["0.0.0.0", "::", "192.168.1.5", "example.org"]) {
      expect(() => load({ PRECEPTOR_HOST: host }), host).toThrow(/there is no API key\. Set PRECEPTOR_API_KEY/);
      expect(load({ PRECEPTOR_HOST: host, PRECEPTOR_API_KEY: "a-key-long-enough" }).host).toBe(host);
    }
    for (const host of ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
      expect(load({ PRECEPTOR_HOST: host }).host).toBe(host);
    expect(loadConfig({ PRECEPTOR_HOST: "0.0.0.0" }, { machine, serving: false }).host).toBe("0.0.0.0");
  });
});

test("a misspelt variable and a weak key are warned about", () => {
  expect(load({ PRECEPTOR_PROT: "1", PRECEPTOR_BANANA: "1", PRECEPTOR_API_KEY: "abc" }).warnings).toEqual([
    "PRECEPTOR_PROT is not a setting and has no effect. Did you mean PRECEPTOR_PORT?",
    "PRECEPTOR_BANANA is not a setting and has no effect.",
    "PRECEPTOR_API_KEY has 3 characters and can be guessed; take at least 16.",
  ]);
});
