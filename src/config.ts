/**
 * One schema of the environment, and the only reader of it. Every setting has a default that works on a laptop; an
 * empty value counts as unset, so that compose files may pass variables through.
 */
import path from "node:path";
import { artifacts, hubHome, type Machine, memory, storedHubToken, thisMachine } from "./config/derived.ts";
import { CREDENTIAL, readSecrets, weakKey } from "./config/secrets.ts";
import { type Env, misspelt, variables } from "./config/variables.ts";
import { fail } from "./errors.ts";

export interface Config {
  host: string;
  /** 0 picks a free one. */
  port: number;
  /** Absolute, as are all directories here. */
  dataDir: string;
  /** `file:<absolute directory>` or `s3:…`. */
  artifacts: string;
  modelsDirs: readonly string[];
  /** Without it the embedded database in `dataDir` is used. */
  databaseUrl: string | undefined;
  apiKey: string | undefined;
  /** By upper-case name; look one up with `findCredential`. */
  credentials: ReadonlyMap<string, string>;
  hub: HubConfig;
  /** Hosts (`name` or `name:port`) that remote engines, webhooks and downloads may reach. */
  allowedHosts: readonly string[];
  threads: number;
  modelMemoryBytes: number;
  log: { level: "fatal" | "error" | "warn" | "info" | "debug" | "trace" | "silent"; format: "pretty" | "json" };
  http: HttpConfig;
  /** The server that command-line clients talk to. */
  serverUrl: string | undefined;
  /** Sentences for the log: misspelt variables, weak keys. */
  warnings: readonly string[];
}

export interface HubConfig {
  token: string | undefined;
  /** Folder of the hub's cache (`models--org--name/…` lie in it). */
  cacheDir: string;
  endpoint: string;
  offline: boolean;
}

export interface HttpConfig {
  corsOrigins: readonly string[];
  metricsOpenOnLoopback: boolean;
  maxBodyBytes: number;
  maxDatasetBytes: number;
  shutdownGraceMs: number;
}

/**
 * Throws `invalid_value` naming every variable that is wrong. `serving: false` (command-line clients) leaves out the
 * refusal to listen beyond loopback without a key.
 */
export function loadConfig(env: Env = process.env, options: { serving?: boolean; machine?: Machine } = {}): Config {
  const machine = options.machine ?? thisMachine();
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value.trim() !== ""));
  const problems: string[] = [];
  const result = variables.safeParse(set);
  for (const issue of result.error?.issues ?? []) problems.push(`${issue.path.join(".")}: ${issue.message}`);
  const secrets = readSecrets(set, problems);
  const hubToken = set.HF_TOKEN ?? storedHubToken(set, machine);
  if (problems.length > 0 || !result.data) throw badEnvironment(problems);

  const e = result.data;
  const dataDir = path.resolve(machine.cwd, e.PRECEPTOR_DATA_DIR);
  const apiKey = secrets.get("PRECEPTOR_API_KEY");
  const config: Config = {
    host: e.PRECEPTOR_HOST,
    port: e.PRECEPTOR_PORT,
    dataDir,
    artifacts: artifacts(e.PRECEPTOR_ARTIFACTS, dataDir, machine.cwd),
    modelsDirs: (e.PRECEPTOR_MODELS_DIRS ?? [path.join(dataDir, "models"), "models"]).map((directory) =>
      path.resolve(machine.cwd, directory),
    ),
    databaseUrl: e.DATABASE_URL,
    apiKey,
    credentials: new Map(
      [...secrets].flatMap(([name, value]) =>
        name.startsWith(CREDENTIAL) ? [[name.slice(CREDENTIAL.length).toUpperCase(), value]] : [],
      ),
    ),
    hub: {
      token: hubToken,
      cacheDir: e.HF_HUB_CACHE ?? path.join(hubHome(set, machine), "hub"),
      endpoint: e.HF_ENDPOINT,
      offline: e.HF_HUB_OFFLINE,
    },
    allowedHosts: e.PRECEPTOR_ALLOWED_HOSTS,
    threads: e.PRECEPTOR_THREADS ?? machine.cores,
    modelMemoryBytes: memory(e.PRECEPTOR_MODEL_MEMORY, machine.memoryBytes),
    log: {
      level: e.PRECEPTOR_LOG_LEVEL,
      format: e.PRECEPTOR_LOG_FORMAT ?? (machine.terminal ? "pretty" : "json"),
    },
    http: {
      corsOrigins: e.PRECEPTOR_CORS_ORIGINS,
      metricsOpenOnLoopback: e.PRECEPTOR_METRICS_OPEN,
      maxBodyBytes: e.PRECEPTOR_MAX_BODY_MB * 1024 * 1024,
      maxDatasetBytes: e.PRECEPTOR_MAX_DATASET_MB * 1024 * 1024,
      shutdownGraceMs: e.PRECEPTOR_SHUTDOWN_GRACE_S * 1000,
    },
    serverUrl: e.PRECEPTOR_URL,
    warnings: [...misspelt(Object.keys(set)), ...weakKey(apiKey)],
  };
  if (options.serving !== false) assertSafeToListen(config);
  return config;
}

/** A secret by the name a registration gives in `credential` (case and dashes do not matter). */
export function findCredential(config: Pick<Config, "credentials">, name: string): string | undefined {
  return config.credentials.get(name.toUpperCase().replaceAll("-", "_"));
}

/** Whoever reaches a server without a key may do everything, so it must not be reachable from other machines. */
export function assertSafeToListen(config: Pick<Config, "host" | "apiKey">): void {
  if (config.apiKey !== undefined || isLoopback(config.host)) return;
  throw fail(
    "invalid_value",
    `PRECEPTOR_HOST is ${config.host}, which other machines can reach, and there is no API key. Set PRECEPTOR_API_KEY (or PRECEPTOR_API_KEY_FILE), or listen on 127.0.0.1.`,
    { param: "PRECEPTOR_API_KEY" },
  );
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function badEnvironment(problems: readonly string[]): Error {
  return fail("invalid_value", `The environment is not usable:\n${problems.map((line) => `  ${line}`).join("\n")}`);
}

/** The environment with some variables set anew: options of the command line win over it. */
export function withSettings(settings: Env, env: Env = process.env): Env {
  const given = Object.entries(settings).filter(([, value]) => value !== undefined);
  return { ...env, ...Object.fromEntries(given) };
}

/** What the environment says about colours (no-color.org, FORCE_COLOR); whether there is a terminal, the caller knows. */
export function colourSettings(env: Env = process.env): {
  noColor: string | undefined;
  forceColor: string | undefined;
  term: string | undefined;
} {
  return { noColor: env.NO_COLOR, forceColor: env.FORCE_COLOR, term: env.TERM };
}
