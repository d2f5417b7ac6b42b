import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import type { TrainingJob } from "../../api/training/jobs/schemas.ts";
import { sanitiseLine } from "../../sanitise.ts";
import type { CliContext } from "../context.ts";
import { CliError, usage } from "../errors.ts";
import type { Client } from "../server/client.ts";
import type { ListBody } from "../server/types.ts";
import { statusLine } from "../terminal/status-line.ts";
import { formatTable } from "../terminal/table.ts";

/** Fast enough for a person, one small query for the server. */
const WATCH_MS = 1_000;

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
      if (!detach) await watch(client, job.id, cli);
    });
}

export function addJobs(program: Command, context: () => CliContext): void {
  const jobs = program.command("jobs").summary("list, show, watch, cancel, pause and resume training jobs");
  jobs
    .command("list")
    .description("The newest training jobs of the running server.")
    .option("--json", "print them as JSON")
    .action(async ({ json }: { json?: boolean }) => {
      const cli = context();
      const list = await cli
        .client()
        .json<ListBody<TrainingJob>>("GET", "/v1/training/jobs?limit=100", { signal: cli.signal });
      if (json) return cli.out(`${JSON.stringify(list.data, null, 2)}\n`);
      if (list.data.length === 0) return cli.note("No training jobs.\n");
      const rows = list.data.map((job) =>
        [job.id, job.method, job.status, stepsOf(job), modelOf(job)].map(sanitiseLine),
      );
      const titles = ["job", "method", "status", "step", "model"].map((title) => ({ title }));
      cli.out(`${formatTable(titles, rows)}\n`);
    });
  jobs
    .command("show <id>")
    .description("One training job as JSON.")
    .action(async (id: string) => {
      const cli = context();
      cli.out(`${JSON.stringify(await cli.client().json("GET", pathOf(id), { signal: cli.signal }), null, 2)}\n`);
    });
  jobs
    .command("watch <id>")
    .description("Follow a training job to its end. Exits with 1 where it fails.")
    .action(async (id: string) => {
      const cli = context();
      await watch(cli.client(), id, cli);
    });
  for (const verb of ["cancel", "pause", "resume"] as const) {
    jobs
      .command(`${verb} <id>`)
      .description(`${verb[0]!.toUpperCase()}${verb.slice(1)} a training job.`)
      .action(async (id: string) => {
        const cli = context();
        const job = await cli
          .client()
          .json<TrainingJob>("POST", `${pathOf(id)}/${verb}`, { body: {}, signal: cli.signal });
        const asked = job.wanted ? ` (${job.wanted} at its next step)` : "";
        cli.note(`${job.id} is ${job.status}${asked}\n`);
      });
  }
}

const pathOf = (id: string): string => `/v1/training/jobs/${encodeURIComponent(id)}`;
const stepsOf = ({ progress }: TrainingJob): string => `${progress.step}/${progress.total_steps ?? "?"}`;
const modelOf = ({ config }: TrainingJob): string => String(config.model);

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

async function watch(client: Client, id: string, { note, signal }: CliContext): Promise<void> {
  const line = statusLine(process.stderr);
  for (;;) {
    const job = await client.json<TrainingJob>("GET", pathOf(id), { signal });
    if (job.finished_at !== null) {
      line.clear();
      return settle(job, note);
    }
    line.show(sanitiseLine(describe(job)));
    await delay(WATCH_MS, undefined, { signal });
  }
}

function describe(job: TrainingJob): string {
  const { progress, metrics } = job;
  const shown = ["reward", "kl", "loss"].flatMap((name) => {
    const value = metrics[name];
    return typeof value === "number" ? [`${name} ${value.toPrecision(3)}`] : [];
  });
  const eta = progress.eta_seconds === null ? [] : [`${Math.ceil(progress.eta_seconds / 60)} min left`];
  return [job.status, `step ${stepsOf(job)}`, ...shown, ...eta].join(" · ");
}

function settle(job: TrainingJob, note: (text: string) => void): void {
  if (job.error) throw new CliError(`${job.id} failed: ${job.error.message}`);
  const { teacher, student, checkpoint } = job.result ?? {};
  note(`${job.id} ${job.status} at step ${stepsOf(job)}: ${teacher ?? student ?? checkpoint ?? "no checkpoint"}\n`);
}
