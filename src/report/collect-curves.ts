/** The metrics of a job as charts: the same metric of several trainings in one. */
import { PreceptorError } from "../errors.ts";
import type { JobQueue } from "../jobs/queue.ts";
import type { Curve } from "./curve-svg.ts";

/** Clocks and counters say nothing of learning. */
const LEFT_OUT = new Set(["step_time", "num_tokens", "epoch"]);
/** More would be no overview; ours are a dozen. */
const MAX_CURVES = 40;
const FIRST = ["reward", "accepted_ratio", "accepted", "loss", "eval_loss"];

export async function collectCurves(queue: Pick<JobQueue, "metrics">, job: string): Promise<Curve[]> {
  const curves = new Map<string, Curve>();
  for (const [name, points] of Object.entries(await series(queue, job))) {
    const [part, metric] = name.includes("/") ? (splitOnce(name) as [string, string]) : [null, name];
    if (LEFT_OUT.has(metric)) continue;
    const key = `${part === null ? "" : "/"}${metric}`;
    const curve = curves.get(key) ?? { title: metric, unit: part === null ? "question" : "step", lines: [] };
    curve.lines.push({ name: part ?? metric, points });
    curves.set(key, curve);
  }
  const place = ({ title }: Curve): number => (FIRST.indexOf(title) + FIRST.length + 1) % (FIRST.length + 1);
  return [...curves.values()].sort((a, b) => place(a) - place(b)).slice(0, MAX_CURVES);
}

const splitOnce = (name: string): string[] => [name.slice(0, name.indexOf("/")), name.slice(name.indexOf("/") + 1)];

/** Every point where they fit into one answer, else every tenth, hundredth, … */
async function series(queue: Pick<JobQueue, "metrics">, job: string): ReturnType<JobQueue["metrics"]> {
  for (let every = 1; ; every *= 10) {
    try {
      return await queue.metrics(job, { every });
    } catch (error) {
      if (!(error instanceof PreceptorError && error.code === "invalid_value") || every > 1e9) throw error;
    }
  }
}
