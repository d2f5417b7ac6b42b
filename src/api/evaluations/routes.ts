import { createRoute, z } from "@hono/zod-openapi";
import { requireScope } from "../../http/auth.ts";
import type { RouteModule } from "../../http/context.ts";
import { jsonResponse } from "../../http/schemas.ts";
import { jobRoutes } from "../jobs/routes.ts";
import { createEvaluationBody, evaluatedRowListSchema, evaluationSchema, listEvaluatedRowsQuery } from "./schemas.ts";
import type { EvaluationService } from "./service.ts";

const tags = ["Evaluations"];
const middleware = [requireScope("train")];
const base = "/v1/evaluations";
const params = z.object({ id: z.string().max(80).openapi({ example: "eval_7d1m" }) });

const create = createRoute({
  method: "post",
  path: base,
  tags,
  middleware,
  summary: "Measure a student",
  description:
    "The student answers the questions of a dataset, and its answers are checked against the solutions. A job like others: it " +
    "survives restarts, and a row that is finished is never generated again. The same seed gives the same answers, so that two " +
    "students, or one before and after training, are compared on the same draws.",
  request: { body: createEvaluationBody },
  responses: { 201: jsonResponse(evaluationSchema, "The evaluation, queued") },
});

const rows = createRoute({
  method: "get",
  path: `${base}/{id}/rows`,
  tags,
  middleware,
  summary: "Read the answers",
  description:
    "Finished rows in the order of the dataset, also while the evaluation runs; rows that are still under way appear when it is " +
    "read again. `first_id` and `last_id` are row numbers. A page of long answers may end before `limit`.",
  request: { params, query: listEvaluatedRowsQuery },
  responses: { 200: jsonResponse(evaluatedRowListSchema, "A page of rows") },
});

export const evaluationRoutes =
  ({ evaluations }: { evaluations: EvaluationService }): RouteModule =>
  (app) => {
    jobRoutes({
      base,
      tags,
      scope: "train",
      name: "Evaluation",
      noun: "an evaluation",
      example: "eval_7d1m",
      schema: evaluationSchema,
      jobs: evaluations,
      events: "`job.status`, `job.metrics`, `job.sample`, `job.warning`",
    })(app);
    app.openapi(create, async (c) => c.json(await evaluations.create(c.req.valid("json")), 201));
    app.openapi(rows, async (c) => {
      const { data, hasMore } = await evaluations.rows(c.req.valid("param").id, c.req.valid("query"));
      const numberOf = (row: { row: number } | undefined): string | null => (row ? String(row.row) : null);
      const first_id = numberOf(data[0]);
      return c.json(
        { object: "list" as const, data, first_id, last_id: numberOf(data.at(-1)), has_more: hasMore },
        200,
      );
    });
  };
