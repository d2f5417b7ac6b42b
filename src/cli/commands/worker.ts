import type { Command } from "commander";

const DETAILS = `
A worker takes queued jobs from the PostgreSQL database in DATABASE_URL, runs them, and writes checkpoints to
PRECEPTOR_ARTIFACTS, which the server must see too. SIGTERM or Ctrl-C gives its job back at once; a killed worker's
job goes on elsewhere within half a minute.

Example:
  $ DATABASE_URL=postgres://… preceptor worker --data-dir /shared/data
`;

export function addWorker(program: Command): void {
  program
    .command("worker")
    .summary("run jobs beside a server")
    .description("Run training jobs and nothing else, against the same database and data directory as a server.")
    .option("--data-dir <directory>", "caches, artifacts (PRECEPTOR_DATA_DIR, default ./data)")
    .option("--models-dir <directory...>", "where local models may lie (PRECEPTOR_MODELS_DIRS)")
    .addHelpText("after", DETAILS)
    .action(async (options: { dataDir?: string; modelsDir?: string[] }) => {
      const { work } = await import("../serve.ts");
      await work(options);
    });
}
