import type { Logger } from "pino";
import { compose, type ProcessRole } from "../compose.ts";
import { type Config, loadConfig, withSettings } from "../config.ts";
import { createLogger } from "../http/log.ts";
import type { ServeOptions } from "./commands/serve.ts";
import { EXIT_FAILURE, usage } from "./errors.ts";

/** What closing may take beyond the requests' grace period (worker threads, database) before the process just ends. */
const CLOSE_LIMIT_MS = 10_000;

/** Runs the server until a signal ends it; resolves when everything is closed. */
export async function serve(options: ServeOptions): Promise<void> {
  await run(loadConfig(withSettings(environmentOf(options))), options.role ?? "all");
}

/** Runs jobs beside a server, on the same database and artifacts, until a signal ends it. */
export async function work(options: Pick<ServeOptions, "dataDir" | "modelsDir">): Promise<void> {
  const config = loadConfig(withSettings(environmentOf(options)), { serving: false });
  if (config.databaseUrl === undefined) {
    throw usage(
      'A worker shares a PostgreSQL database with its server: set DATABASE_URL. The embedded database belongs to one process, the server, which runs its jobs itself ("preceptor serve").',
    );
  }
  await run(config, "worker");
}

async function run(config: Config, role: ProcessRole): Promise<void> {
  const log = createLogger(config.log);
  endOnUncaught(log);
  const signalled = firstSignal(log);
  const app = await compose(config, log, { role });
  const signal = await signalled;
  log.info({ signal }, "shutting down: requests under way may finish");
  const limit = setTimeout(() => {
    log.fatal("shutting down took too long; ending the process");
    process.exit(EXIT_FAILURE);
  }, config.http.shutdownGraceMs + CLOSE_LIMIT_MS);
  await app.close();
  clearTimeout(limit);
  log.info("stopped");
}

function environmentOf(options: ServeOptions): Record<string, string | undefined> {
  return {
    PRECEPTOR_HOST: options.host,
    PRECEPTOR_PORT: options.port === undefined ? undefined : String(options.port),
    PRECEPTOR_DATA_DIR: options.dataDir,
    PRECEPTOR_MODELS_DIRS: options.modelsDir?.join(":"),
  };
}

/** Resolves with the first SIGTERM or SIGINT; the second one ends the process at once. */
function firstSignal(log: Logger): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let seen = false;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (seen) {
        log.warn({ signal }, "second signal: ending at once");
        // The databases survive this; the lock file is taken over by the next start.
        process.exit(EXIT_FAILURE);
      }
      seen = true;
      resolve(signal);
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}

/** After an error nobody caught the state is unknown; the databases survive an abrupt end, wrong answers would not do. */
function endOnUncaught(log: Logger): void {
  const end = (err: unknown): void => {
    log.fatal({ err }, "an error that nothing caught; ending the process");
    process.exit(EXIT_FAILURE);
  };
  process.on("uncaughtException", end);
  process.on("unhandledRejection", end);
}
