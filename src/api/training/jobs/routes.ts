import { createRoute, z } from "@hono/zod-openapi";
import { fail } from "../../../errors.ts";
import { requireScope } from "../../../http/auth.ts";
import type { ApiContext, RouteModule } from "../../../http/context.ts";
import { listQuery, toList } from "../../../http/list.ts";
import { jsonBody, jsonOrEvents, jsonResponse } from "../../../http/schemas.ts";
import { sse } from "../../../http/sse.ts";
import { checkpointListSchema } from "../../checkpoints/schemas.ts";
import type { CheckpointService } from "../../checkpoints/service.ts";
import { createTrainingJobSchema, forkSchema } from "./request-schemas.ts";
import {
  listEventsQuery,
  listTrainingJobsQuery,
  metricSeriesSchema,
  metricsQuery,
  trainingEventListSchema,
  trainingJobListSchema,
  trainingJobSchema,
} from "./schemas.ts";
import type { TrainingJobService } from "./service.ts";

const tags = ["Training jobs"];
const middleware = [requireScope("train")];
const base = "/v1/training/jobs";
const params = z.object({ id: z.string().max(80).openapi({ example: "tjob_7d1m" }) });
const job = { 200: jsonResponse(trainingJobSchema, "The job as it is now") };

const create = createRoute({
  method: "post",
  path: base,
  tags,
  middleware,
  summary: "Train a model",
  description:
    "`rlt` trains a teacher by what its student understands, `sft` a teacher or student on examples. Everything that can be " +
    "refused is refused before the job is queued. The result becomes the next version of the model, or `<id>-<suffix>`.",
  request: { body: jsonBody(createTrainingJobSchema) },
  responses: { 201: jsonResponse(trainingJobSchema, "The job, queued") },
});
const list = createRoute({
  method: "get",
  path: base,
  tags,
  middleware,
  summary: "List training jobs",
  request: { query: listTrainingJobsQuery },
  responses: { 200: jsonResponse(trainingJobListSchema, "A page of jobs") },
});
const get = createRoute({
  method: "get",
  path: `${base}/{id}`,
  tags,
  middleware,
  summary: "Get a training job",
  request: { params },
  responses: job,
});
const verb = (name: "cancel" | "pause" | "resume", summary: string, description: string) =>
  createRoute({
    method: "post",
    path: `${base}/{id}/${name}`,
    tags,
    middleware,
    summary,
    description,
    request: { params },
    responses: job,
  });
const cancel = verb("cancel", "Cancel a job", "A running job stops at its next step and keeps its last checkpoint.");
const pause = verb(
  "pause",
  "Pause a job",
  "A running job saves a checkpoint at its next step and gives the machine back.",
);
const resume = verb("resume", "Resume a paused job", "It goes on from its last checkpoint as if it had never stopped.");
const fork = createRoute({
  method: "post",
  path: `${base}/{id}/fork`,
  tags,
  middleware,
  summary: "Go on from a checkpoint in a new job",
  description: "Weights, optimizer and step are those of the checkpoint; hyperparameters may differ.",
  request: { params, body: jsonBody(forkSchema) },
  responses: { 201: jsonResponse(trainingJobSchema, "The new job, queued") },
});
const events = createRoute({
  method: "get",
  path: `${base}/{id}/events`,
  tags,
  middleware,
  summary: "Events of a job",
  description:
    "`job.status`, `job.metrics`, `job.sample`, `job.checkpoint`, `job.warning`, at last `job.completed`, `job.failed` or " +
    "`job.cancelled`. As a list, or with `Accept: text/event-stream` (or `?stream=true`) live: first what came after " +
    "`Last-Event-ID` or `?after=`, then new ones, until the last.",
  request: { params, query: listEventsQuery },
  responses: { 200: jsonOrEvents(trainingEventListSchema, "A page of events, or the events") },
});
const metrics = createRoute({
  method: "get",
  path: `${base}/{id}/metrics`,
  tags,
  middleware,
  summary: "Metrics of a job as series",
  request: { params, query: metricsQuery },
  responses: { 200: jsonResponse(metricSeriesSchema, "Series by name") },
});
const checkpoints = createRoute({
  method: "get",
  path: `${base}/{id}/checkpoints`,
  tags,
  middleware,
  summary: "Checkpoints of a job",
  request: { params, query: listQuery },
  responses: { 200: jsonResponse(checkpointListSchema, "A page of checkpoints") },
});

export interface TrainingJobRoutes {
  jobs: TrainingJobService;
  checkpoints: Pick<CheckpointService, "list">;
}

export const trainingJobRoutes =
  ({ jobs, checkpoints: saved }: TrainingJobRoutes): RouteModule =>
  (app) => {
    app.openapi(create, async (c) => c.json(await jobs.create(c.req.valid("json")), 201));
    app.openapi(list, async (c) => {
      const { metadata, ...query } = c.req.valid("query");
      const { data, hasMore } = await jobs.list({ ...query, metadata: pairs(metadata) });
      return c.json(toList(data, hasMore), 200);
    });
    app.openapi(get, async (c) => c.json(await jobs.get(c.req.valid("param").id), 200));
    app.openapi(cancel, async (c) => c.json(await jobs.cancel(c.req.valid("param").id), 200));
    app.openapi(pause, async (c) => c.json(await jobs.pause(c.req.valid("param").id), 200));
    app.openapi(resume, async (c) => c.json(await jobs.resume(c.req.valid("param").id), 200));
    app.openapi(fork, async (c) => c.json(await jobs.fork(c.req.valid("param").id, c.req.valid("json")), 201));
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
      const wanted = names?.split(",").map((name) => name.trim());
      return c.json(await jobs.metrics(c.req.valid("param").id, { ...query, names: wanted }), 200);
    });
    app.openapi(checkpoints, async (c) => {
      const { id } = c.req.valid("param");
      await jobs.get(id);
      const { data, hasMore } = await saved.list({ ...c.req.valid("query"), job: id });
      return c.json(toList(data, hasMore), 200);
    });
  };

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
