import { and, eq, gt, inArray, sql } from "drizzle-orm";
import { guarded } from "../db/errors.ts";
import { jobMetrics, jobs } from "../db/schema/jobs.ts";
import { fail } from "../errors.ts";
import { held, holds } from "./lease.ts";
import type { JobRecord, Lease } from "./records.ts";
import { type JobsDb, transition } from "./transition.ts";

/** Longest answer of one query: 30 metrics over 3,000 steps, a few megabytes. */
export const MAX_POINTS = 100_000;

export interface MetricsQuery {
  /** Default: all. */
  names?: readonly string[] | undefined;
  /** One point per stretch of so many steps, its last one: a curve of 100,000 steps in 500 points. */
  every?: number | undefined;
  /** Only steps beyond this one. */
  after?: number | undefined;
}

export interface MetricPoint {
  step: number;
  /** null: infinite, or not a number. */
  value: number | null;
}

/**
 * Writes the values of a step: into the series (a step done again overwrites), into the job's latest values, and as
 * a `job.metrics` event. Numbers that JSON cannot say become null: a loss that diverged must be seen, not end the job.
 */
export async function writeMetrics(
  deps: JobsDb,
  lease: Lease,
  step: number,
  values: Readonly<Record<string, number>>,
): Promise<JobRecord> {
  const finite = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, Number.isFinite(value) ? value : null]),
  );
  const document = sql.param(finite, jobs.metrics);
  const rows = await transition(deps, {
    where: holds(lease),
    set: { metrics: sql`${jobs.metrics} || ${document}::jsonb` },
    events: [{ type: "job.metrics", data: { step, metrics: finite } }],
    also: {
      series: sql`
        insert into ${jobMetrics} (job_id, step, name, value)
        select changed.id, ${step}::bigint, point.key, point.value::double precision
        from changed, json_each_text(${document}::json) as point
        on conflict (job_id, step, name) do update set value = excluded.value`,
    },
  });
  return held(rows, lease);
}

/** Series by name, each in order of steps. What would be too long is refused rather than cut. */
export async function readMetrics(
  { db }: JobsDb,
  jobId: string,
  { names, every = 1, after }: MetricsQuery,
): Promise<Record<string, MetricPoint[]>> {
  const { name, step, value } = jobMetrics;
  const stretch = sql<number>`${step} / ${every}::bigint`.as("stretch");
  const rows = await guarded(
    db
      // By position: with its parameter written twice the stretch would count as two expressions.
      .selectDistinctOn([sql`1`, sql`2`], { name, stretch, step, value })
      .from(jobMetrics)
      .where(
        and(
          eq(jobMetrics.jobId, jobId),
          names && inArray(name, [...names]),
          after === undefined ? undefined : gt(step, after),
        ),
      )
      .orderBy(sql`1, 2, 3 desc`)
      .limit(MAX_POINTS + 1),
  );
  if (rows.length > MAX_POINTS) {
    throw fail("invalid_value", `more than ${MAX_POINTS} points; name fewer metrics, or pass a larger \`every\``, {
      param: "every",
    });
  }
  const series = new Map<string, MetricPoint[]>();
  for (const row of rows) {
    const points = series.get(row.name) ?? [];
    points.push({ step: row.step, value: row.value });
    series.set(row.name, points);
  }
  return Object.fromEntries(series);
}
