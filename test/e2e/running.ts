import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { type ComposeOptions, compose } from "../../src/compose.ts";
import { loadConfig } from "../../src/config.ts";
import { giveDatabase } from "../database-template.ts";

export const GOLDEN = fileURLToPath(new URL("../golden/models", import.meta.url));

export interface Running {
  url: string;
  dataDir: string;
  /** Posts JSON and expects this status (200 or 201 unless said otherwise). */
  post<T = never>(route: string, body: unknown, status?: number): Promise<T>;
  get<T = never>(route: string, status?: number): Promise<T>;
  close(): Promise<void>;
}

/** The whole program on a free port with a data directory of its own; `env` overrides settings. */
export async function startPreceptor(
  env: Record<string, string> = {},
  keep?: string,
  options: ComposeOptions = {},
): Promise<Running> {
  const dataDir = keep ?? (await mkdtemp(path.join(tmpdir(), "preceptor-e2e-")));
  const config = loadConfig({
    PRECEPTOR_PORT: "0",
    PRECEPTOR_DATA_DIR: dataDir,
    PRECEPTOR_MODELS_DIRS: GOLDEN,
    PRECEPTOR_SHUTDOWN_GRACE_S: "1",
    HF_HUB_OFFLINE: "1",
    HF_HOME: path.join(dataDir, "hf"),
    ...env,
  });
  if (config.databaseUrl === undefined) await giveDatabase(dataDir);
  const app = await compose(config, pino({ level: process.env.TEST_LOG ?? "silent" }), options);
  const call = async (route: string, init: RequestInit, allowed: readonly number[]): Promise<never> => {
    const response = await fetch(app.url + route, init);
    const text = await response.text();
    if (!allowed.includes(response.status)) throw new Error(`${route}: ${response.status} ${text.slice(0, 1000)}`);
    return (text === "" ? undefined : JSON.parse(text)) as never;
  };
  return {
    url: app.url,
    dataDir,
    post: (route, body, status) =>
      call(
        route,
        { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) },
        status === undefined ? [200, 201, 202] : [status],
      ),
    get: (route, status = 200) => call(route, {}, [status]),
    async close() {
      await app.close();
      if (keep === undefined) await rm(dataDir, { recursive: true, force: true });
    },
  };
}
