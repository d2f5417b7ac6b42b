/** The routes that every kind of job has: to look at it, to change its course, to follow it. */
import { createRoute, z } from "@hono/zod-openapi";
import { fail } from "../../errors.ts";
import { requireScope } from "../../http/auth.ts";
import type { ApiContext, RouteModule, Scope } from "../../http/context.ts";
import { listSchema, toList } from "../../http/list.ts";
import { jsonOrEvents, jsonResponse } from "../../http/schemas.ts";
import { sse } from "../../http/sse.ts";
import {
  jobEventListSchema,
  jobMetricsSchema,
  type ListJobsQuery,
  listEventsQuery,
  listJobsQuery,
  metricsQuery,
} from "./schemas.ts";
import type { JobListQuery, JobService } from "./service.ts";

export interface JobRoutes<Resource extends { id: string }, Query extends ListJobsQuery = ListJobsQuery> {
  base: string;
  tags: string[];
  scope: Scope;
  /** Of the resource in the document: `TrainingJob`. */
  name: string;
  /** In words: `a training job`. */
  noun: string;
  /** Example of an id. */
  example: string;
  schema: z.ZodType;
  jobs: JobService<Resource>;
  /** Which events a job tells, for the document. */
  events: string;
  /** Where lists have filters of their own. */
  listQuery?: z.ZodType<Query> & typeof listJobsQuery;
  toQuery?(query: Query): Partial<JobListQuery>;
}

export function jobRoutes<Resource extends { id: string }, Query extends ListJobsQuery = ListJobsQuery>(
  kind: JobRoutes<Resource, Query>,
): RouteModule {
  const { base, tags, scope, name, noun, schema, jobs } = kind;
  const middleware = [requireScope(scope)];
  const params = z.object({ id: z.string().max(80).openapi({ example: kind.example }) });
  const answer = { 200: jsonResponse(schema, "The job as it is now") };
  const common = { tags, middleware };

  const list = createRoute({
    ...common,
    method: "get",
    path: base,
    summary: `List ${noun.replace(/^an? /, "")}s`,
    request: { query: kind.listQuery ?? listJobsQuery },
    responses: { 200: jsonResponse(listSchema(`${name}List`, schema), "A page of jobs") },
  });
  const get = createRoute({
    ...common,
    method: "get",
    path: `${base}/{id}`,
    summary: `Get ${noun}`,
    request: { params },
    responses: answer,
  });
  const verb = (path: "cancel" | "pause" | "resume", summary: string, description: string) =>
    createRoute({
      ...common,
      method: "post",
      path: `${base}/{id}/${path}`,
      summary,
      description,
      request: { params },
      responses: answer,
    });
  const cancel = verb("cancel", "Cancel a job", "A running job stops at its next step and keeps what it has finished.");
  const pause = verb("pause", "Pause a job", "A running job stops at its next step and gives the machine back.");
  const resume = verb("resume", "Resume a paused job", "It goes on from where it stands as if it had never stopped.");
  const events = createRoute({
    ...common,
    method: "get",
    path: `${base}/{id}/events`,
    summary: "Events of a job",
    description:
      `${kind.events}, at last \`job.completed\`, \`job.failed\` or \`job.cancelled\`. As a list, or with ` +
      "`Accept: text/event-stream` (or `?stream=true`) live: first what came after `Last-Event-ID` or `?after=`, then new " +
      "ones, until the last.",
    request: { params, query: listEventsQuery },
    responses: { 200: jsonOrEvents(jobEventListSchema, "A page of events, or the events") },
  });
  const metrics = createRoute({
    ...common,
    method: "get",
    path: `${base}/{id}/metrics`,
    summary: "Metrics of a job as series",
    request: { params, query: metricsQuery },
    responses: { 200: jsonResponse(jobMetricsSchema, "Series by name") },
  });

  return (app) => {
    // Answers are typed by each kind's own toResource, not by a schema that is not known here.
    const answered = (c: ApiContext, body: unknown): never => c.json(body as object, 200) as never;
    app.openapi(list, async (c) => {
      const query = c.req.valid("query") as Query;
      const { after, limit, order, status, metadata } = query;
      const own = kind.toQuery?.(query);
      const { data, hasMore } = await jobs.list({ after, limit, order, status, metadata: pairs(metadata), ...own });
      return answered(c, toList(data, hasMore));
    });
    app.openapi(get, async (c) => answered(c, await jobs.get(c.req.valid("param").id)));
    app.openapi(cancel, async (c) => answered(c, await jobs.cancel(c.req.valid("param").id)));
    app.openapi(pause, async (c) => answered(c, await jobs.pause(c.req.valid("param").id)));
    app.openapi(resume, async (c) => answered(c, await jobs.resume(c.req.valid("param").id)));
    app.openapi(events, async (c) => {
      const { id } = c.req.valid("param");
      const { stream, after, limit } = c.req.valid("query");
      if (stream || c.req.header("accept")?.includes("text/event-stream")) {
        const from = lastSeen(c) ?? after;
        // A streamed answer is not typed as the JSON one.
        return (await sse(
          c,
          ({ signal, send }) =>
            jobs.follow(id, from, signal, ({ type, sequence_number: _, ...event }) => send(type, event)),
          { firstSequenceNumber: from + 1, replayed: true },
        )) as never;
      }
      const { data, hasMore } = await jobs.events(id, { after, limit });
      return c.json(toList(data, hasMore), 200);
    });
    app.openapi(metrics, async (c) => {
      const { names, ...query } = c.req.valid("query");
      const wanted = names?.split(",").map((each) => each.trim());
      return c.json(await jobs.metrics(c.req.valid("param").id, { ...query, names: wanted }), 200);
    });
  };
}

/** What a browser's EventSource sends when it comes back. */
function lastSeen(c: ApiContext): number | undefined {
  const header = c.req.header("last-event-id");
  if (header === undefined || header === "") return undefined;
  if (/^\d{1,9}$/.test(header)) return Number(header);
  throw fail("invalid_value", "Last-Event-ID must be the sequence number of an event", { param: "Last-Event-ID" });
}

function pairs(text: string | undefined): Record<string, string> | undefined {
  if (text === undefined) return undefined;
  return Object.fromEntries(
    text.split(",").map((pair) => {
      const at = pair.indexOf(":");
      if (at < 1)
        throw fail("invalid_value", "metadata: write key:value, several separated by commas", { param: "metadata" });
      return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
    }),
  );
}
