import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import { sanitiseLine } from "../../sanitise.ts";
import type { CliContext } from "../context.ts";
import { CliError } from "../errors.ts";
import type { Client } from "../server/client.ts";
import type { ListBody } from "../server/types.ts";
import { statusLine } from "../terminal/status-line.ts";
import { formatTable } from "../terminal/table.ts";
import { type AnyJob, KINDS, kindOf } from "./job-kinds.ts";

/** Fast enough for a person, one small query for the server. */
const WATCH_MS = 1_000;
/** Of the newest, of each kind: more than anybody reads. */
const LISTED = 100;

export function addJobs(program: Command, context: () => CliContext): void {
  const jobs = program.command("jobs").summary("list, show, watch, cancel, pause and resume jobs and evaluations");
  jobs
    .command("list")
    .description("The newest jobs of the running server: training, distillation, evaluations.")
    .option("--json", "print them as JSON")
    .action(async ({ json }: { json?: boolean }) => {
      const cli = context();
      const list = await newest(cli.client(), cli.signal);
      if (json) return cli.out(`${JSON.stringify(list, null, 2)}\n`);
      if (list.length === 0) return cli.note("No jobs.\n");
      const rows = list.map((job) => {
        const { method, steps, model } = kindOf(job.id);
        return [job.id, method(job), job.status, steps(job), model(job)].map(sanitiseLine);
      });
      const titles = ["job", "method", "status", "step", "model"].map((title) => ({ title }));
      cli.out(`${formatTable(titles, rows)}\n`);
    });
  jobs
    .command("show <id>")
    .description("One job as JSON.")
    .action(async (id: string) => {
      const cli = context();
      cli.out(`${JSON.stringify(await cli.client().json("GET", pathOf(id), { signal: cli.signal }), null, 2)}\n`);
    });
  jobs
    .command("watch <id>")
    .description("Follow a job to its end. Exits with 1 where it fails.")
    .action(async (id: string) => {
      const cli = context();
      await watchJob(cli.client(), id, cli);
    });
  for (const verb of ["cancel", "pause", "resume"] as const) {
    jobs
      .command(`${verb} <id>`)
      .description(`${verb[0]!.toUpperCase()}${verb.slice(1)} a job.`)
      .action(async (id: string) => {
        const cli = context();
        const job = await cli.client().json<AnyJob>("POST", `${pathOf(id)}/${verb}`, { body: {}, signal: cli.signal });
        const asked = job.wanted ? ` (${job.wanted} at its next step)` : "";
        cli.note(`${job.id} is ${job.status}${asked}\n`);
      });
  }
}

const pathOf = (id: string): string => `${kindOf(id).base}/${encodeURIComponent(id)}`;

async function newest(client: Client, signal: AbortSignal): Promise<AnyJob[]> {
  const lists = await Promise.all(
    KINDS.map(({ base }) => client.json<ListBody<AnyJob>>("GET", `${base}?limit=${LISTED}`, { signal })),
  );
  return lists
    .flatMap(({ data }) => data)
    .sort((a, b) => b.created_at - a.created_at)
    .slice(0, LISTED);
}

export async function watchJob(client: Client, id: string, { note, signal }: CliContext): Promise<void> {
  const kind = kindOf(id);
  const line = statusLine(process.stderr);
  for (;;) {
    const job = await client.json<AnyJob>("GET", pathOf(id), { signal });
    if (job.finished_at !== null) {
      line.clear();
      if (job.error) throw new CliError(`${job.id} failed: ${job.error.message}`);
      note(`${job.id} ${job.status} ${kind.ended(job)}\n`);
      return;
    }
    const eta = job.progress.eta_seconds === null ? [] : [`${Math.ceil(job.progress.eta_seconds / 60)} min left`];
    line.show(sanitiseLine([job.status, ...kind.underWay(job), ...eta].join(" · ")));
    await delay(WATCH_MS, undefined, { signal });
  }
}
