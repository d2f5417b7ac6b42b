import { createRoute, z } from "@hono/zod-openapi";
import { requireScope } from "../../http/auth.ts";
import type { RouteModule } from "../../http/context.ts";
import { jsonBody, jsonResponse } from "../../http/schemas.ts";
import { jobRoutes } from "../jobs/routes.ts";
import { createDistillationSchema, liveRowsQuery } from "./request-schemas.ts";
import { rescoreSchema } from "./rescore.ts";
import { distillationJobSchema, liveRowsSchema } from "./schemas.ts";
import type { DistillationService } from "./service.ts";

const tags = ["Distillation"];
const middleware = [requireScope("train")];
const base = "/v1/distillation/jobs";
const params = z.object({ id: z.string().max(80).openapi({ example: "djob_7d1m" }) });

const create = createRoute({
  method: "post",
  path: base,
  tags,
  middleware,
  summary: "Distil a dataset",
  description:
    "A teacher explains every question of a dataset, a student scores the explanations, the ones selected become a new " +
    "dataset, every other one is kept with its reason. Everything that can be refused is refused before the job is queued.",
  request: { body: jsonBody(createDistillationSchema) },
  responses: { 201: jsonResponse(distillationJobSchema, "The job, queued") },
});
const rows = createRoute({
  method: "get",
  path: `${base}/{id}/rows`,
  tags,
  middleware,
  summary: "Rows of a distillation job",
  description: "Accepted or rejected ones in their order, while the job still runs.",
  request: { params, query: liveRowsQuery },
  responses: { 200: jsonResponse(liveRowsSchema, "A page of rows") },
});
const rescore = createRoute({
  method: "post",
  path: "/v1/datasets/{id}/score",
  tags,
  middleware,
  summary: "Score and rank the rows of a dataset",
  description:
    "A job that has a student read every row's reasoning_trace, from wherever it came; rows with the same question are " +
    "ranked against each other. The result is a new dataset. Scores that the rows bring from the same models are put together " +
    "anew with other coefficients, without a model being asked.",
  request: {
    params: z.object({ id: z.string().max(160).openapi({ example: "ds_7d1m" }) }),
    body: jsonBody(rescoreSchema),
  },
  responses: { 201: jsonResponse(distillationJobSchema, "The job, queued") },
});

export const distillationRoutes =
  ({ distillations: jobs }: { distillations: DistillationService }): RouteModule =>
  (app) => {
    jobRoutes({
      base,
      tags,
      scope: "train",
      name: "DistillationJob",
      noun: "a distillation job",
      example: "djob_7d1m",
      schema: distillationJobSchema,
      jobs,
      events: "`job.status`, `job.metrics`, `job.sample`, `job.checkpoint`, `job.warning`",
    })(app);
    app.openapi(create, async (c) => c.json(await jobs.create(c.req.valid("json")), 201));
    app.openapi(rescore, async (c) => c.json(await jobs.rescore(c.req.valid("param").id, c.req.valid("json")), 201));
    app.openapi(rows, async (c) => c.json(await jobs.rows(c.req.valid("param").id, c.req.valid("query")), 200));
  };
