import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import type { TrainingJob } from "../../api/training/jobs/schemas.ts";
import type { CliContext } from "../context.ts";
import { usage } from "../errors.ts";
import { watchJob } from "./jobs.ts";

const EXAMPLES = `
job.json is the body of POST /v1/training/jobs:
  {"method": "rlt", "teacher": "smollm2", "student": "smollm2", "dataset": "ds_7d1m", "hyperparameters": {"max_steps": 60}}

Examples:
  $ preceptor train job.json                 # queues it and watches; Ctrl-C leaves it running
  $ preceptor train job.json --detach        # prints its id
`;

export function addTrain(program: Command, context: () => CliContext): void {
  program
    .command("train <job.json>")
    .summary("queue a training job on the running server and watch it")
    .description(
      "Queue a training job on the running server (--url) and watch it to its end. Exits with 1 where it fails.",
    )
    .option("--detach", "print the job's id instead of watching")
    .addHelpText("after", EXAMPLES)
    .action(async (file: string, { detach }: { detach?: boolean }) => {
      const cli = context();
      const client = cli.client();
      const job = await client.json<TrainingJob>("POST", "/v1/training/jobs", {
        body: await readJob(file),
        signal: cli.signal,
      });
      cli.out(`${job.id}\n`);
      if (!detach) await watchJob(client, job.id, cli);
    });
}

async function readJob(file: string): Promise<unknown> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw usage(`${file} cannot be read (${error.code}).`);
  });
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw usage(`${file} is not JSON.`);
  }
}
