import { type Command, Option } from "commander";
import { integer } from "../options.ts";

export interface ServeOptions {
  host?: string;
  port?: number;
  dataDir?: string;
  modelsDir?: string[];
  role?: "all" | "api";
}

const DETAILS = `
Every setting is an environment variable (README.md lists them); the options above win over it.
SIGTERM or Ctrl-C: new requests are refused, those under way get a grace period, then everything is closed and the exit
code is 0. A second signal ends the process at once with 1.

Examples:
  $ preceptor serve
  $ preceptor serve --port 0 --data-dir /tmp/preceptor       # any free port; the first log line names it
  $ PRECEPTOR_API_KEY_FILE=/run/secrets/key preceptor serve --host 0.0.0.0
`;

export function addServe(program: Command): void {
  program
    .command("serve")
    .summary("start the server")
    .description("Start the HTTP server. Models in the models directories that are not registered yet are registered.")
    .option("--host <address>", "where to listen (PRECEPTOR_HOST, default 127.0.0.1; wider needs an API key)")
    .option("--port <port>", "0 picks a free one (PRECEPTOR_PORT, default 8080)", integer(0, 65_535))
    .option("--data-dir <directory>", "embedded database, caches, downloads (PRECEPTOR_DATA_DIR, default ./data)")
    .option("--models-dir <directory...>", "where local models may lie (PRECEPTOR_MODELS_DIRS)")
    .addOption(new Option("--role <role>", "api: leave jobs to workers (default: all)").choices(["all", "api"]))
    .addHelpText("after", DETAILS)
    .action(async (options: ServeOptions) => {
      const { serve } = await import("../serve.ts");
      await serve(options);
    });
}
