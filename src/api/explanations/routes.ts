import { createRoute, z } from "@hono/zod-openapi";
import { callerOf } from "../../http/client.ts";
import type { RouteModule } from "../../http/context.ts";
import { toList } from "../../http/list.ts";
import { jsonBody, jsonOrEvents, jsonResponse } from "../../http/schemas.ts";
import { sse } from "../../http/sse.ts";
import { deletedSchema } from "../deleted.ts";
import { createExplanationSchema, explanationListSchema, explanationSchema, listExplanationsQuery } from "./schemas.ts";
import type { ExplanationService } from "./service.ts";

const tags = ["Explanations"];
const params = z.object({ id: z.string().max(80).openapi({ example: "expl_3f9k" }) });

const create = createRoute({
  method: "post",
  path: "/v1/explanations",
  tags,
  summary: "Have a teacher explain a solution",
  description:
    "With `stream: true` the answer is server-sent events: `explanation.created`, then `explanation.delta {index, delta}`, " +
    "`explanation.choice {index, finish_reason}` and, with `rank_by`, `explanation.scored {index, score}`, at last " +
    "`explanation.completed` with the whole resource. While it waits for its turn, `explanation.queued {position, reason}` " +
    "says where it stands (1 is next) and why, again whenever that changes. A client that leaves stops the work. Too much " +
    "at once is refused with 429 `queue_full` (this client) or 503 `overloaded` (everybody together) and `Retry-After`.",
  request: { body: jsonBody(createExplanationSchema) },
  responses: {
    200: jsonOrEvents(explanationSchema, "The explanation, or its events"),
    202: jsonResponse(explanationSchema, "Accepted with `background: true`"),
  },
});

const list = createRoute({
  method: "get",
  path: "/v1/explanations",
  tags,
  summary: "List explanations",
  request: { query: listExplanationsQuery },
  responses: { 200: jsonResponse(explanationListSchema, "A page of explanations") },
});

const get = createRoute({
  method: "get",
  path: "/v1/explanations/{id}",
  tags,
  summary: "Get an explanation",
  request: { params },
  responses: { 200: jsonResponse(explanationSchema, "The explanation") },
});

const cancel = createRoute({
  method: "post",
  path: "/v1/explanations/{id}/cancel",
  tags,
  summary: "Stop writing an explanation",
  description: "What was written so far is kept. A finished explanation stays as it is.",
  request: { params },
  responses: { 200: jsonResponse(explanationSchema, "The explanation as it is now") },
});

const remove = createRoute({
  method: "delete",
  path: "/v1/explanations/{id}",
  tags,
  summary: "Delete an explanation",
  request: { params },
  responses: { 200: jsonResponse(deletedSchema, "It is gone") },
});

export const explanationRoutes =
  ({ explanations }: { explanations: ExplanationService }): RouteModule =>
  (app) => {
    app.openapi(create, async (c) => {
      const request = c.req.valid("json");
      if (request.stream) {
        // A streamed answer is not typed as the JSON one.
        return (await sse(c, ({ signal, send }) =>
          explanations.stream(request, { ...callerOf(c), signal }, send),
        )) as never;
      }
      const explanation = await explanations.create(request, callerOf(c));
      return request.background ? c.json(explanation, 202) : c.json(explanation, 200);
    });
    app.openapi(list, async (c) => {
      const { data, hasMore } = await explanations.list(c.req.valid("query"));
      return c.json(toList(data, hasMore), 200);
    });
    app.openapi(get, async (c) => c.json(await explanations.get(c.req.valid("param").id), 200));
    app.openapi(cancel, async (c) => c.json(await explanations.cancel(c.req.valid("param").id), 200));
    app.openapi(remove, async (c) => {
      const { id } = c.req.valid("param");
      await explanations.remove(id);
      return c.json({ id, object: "explanation", deleted: true as const }, 200);
    });
  };
