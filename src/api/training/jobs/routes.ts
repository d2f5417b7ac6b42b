import { createRoute, z } from "@hono/zod-openapi";
import { requireScope } from "../../../http/auth.ts";
import type { RouteModule } from "../../../http/context.ts";
import { listQuery, toList } from "../../../http/list.ts";
import { jsonBody, jsonResponse } from "../../../http/schemas.ts";
import { checkpointListSchema } from "../../checkpoints/schemas.ts";
import type { CheckpointService } from "../../checkpoints/service.ts";
import { jobRoutes } from "../../jobs/routes.ts";
import { createTrainingJobSchema, forkSchema } from "./request-schemas.ts";
import { KINDS } from "./resource.ts";
import { listTrainingJobsQuery, trainingJobSchema } from "./schemas.ts";
import type { TrainingJobService } from "./service.ts";

const tags = ["Training jobs"];
const middleware = [requireScope("train")];
const base = "/v1/training/jobs";
const params = z.object({ id: z.string().max(80).openapi({ example: "tjob_7d1m" }) });
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
    jobRoutes({
      base,
      tags,
      scope: "train",
      name: "TrainingJob",
      noun: "a training job",
      example: "tjob_7d1m",
      schema: trainingJobSchema,
      jobs,
      events: "`job.status`, `job.metrics`, `job.sample`, `job.checkpoint`, `job.warning`",
      listQuery: listTrainingJobsQuery,
      toQuery: ({ method }) => (method ? { kinds: [KINDS[method]] } : {}),
    })(app);
    app.openapi(create, async (c) => c.json(await jobs.create(c.req.valid("json")), 201));
    app.openapi(fork, async (c) => c.json(await jobs.fork(c.req.valid("param").id, c.req.valid("json")), 201));
    app.openapi(checkpoints, async (c) => {
      const { id } = c.req.valid("param");
      await jobs.get(id);
      const { data, hasMore } = await saved.list({ ...c.req.valid("query"), job: id });
      return c.json(toList(data, hasMore), 200);
    });
  };
