import { createRoute } from "@hono/zod-openapi";
import { callerOf } from "../../http/client.ts";
import type { RouteModule } from "../../http/context.ts";
import { jsonBody, jsonResponse } from "../../http/schemas.ts";
import { createScoresSchema, scoreListSchema } from "./schemas.ts";
import type { ScoreService } from "./service.ts";

const create = createRoute({
  method: "post",
  path: "/v1/scores",
  tags: ["Scores"],
  summary: "Score explanations by what a student makes of them",
  description:
    "The reward of arXiv 2506.08388: how likely the solution becomes for the student after reading the explanation, and " +
    "how natural the explanation is to someone who does not know the solution. One bad item comes back in place as an " +
    "error and does not lose the others; an engine with too much to do refuses all of them (429 `queue_full`, 503 " +
    "`overloaded`, with `Retry-After`).",
  request: { body: jsonBody(createScoresSchema) },
  responses: { 200: jsonResponse(scoreListSchema, "One score or error per item, in order") },
});

export const scoreRoutes =
  (deps: { scores: ScoreService }): RouteModule =>
  (app) => {
    app.openapi(create, async (c) => c.json(await deps.scores.create(c.req.valid("json"), callerOf(c)), 200));
  };
