import { createRoute, z } from "@hono/zod-openapi";
import { requireScope } from "../../../http/auth.ts";
import { callerOf } from "../../../http/client.ts";
import type { RouteModule } from "../../../http/context.ts";
import { listQuery, toList } from "../../../http/list.ts";
import { jsonBody, jsonResponse } from "../../../http/schemas.ts";
import { deletedSchema } from "../../deleted.ts";
import {
  checkpointSchema,
  createSessionSchema,
  lossResultSchema,
  lossSchema,
  optimStepResultSchema,
  optimStepSchema,
  saveSchema,
  sessionIdSchema,
  sessionListSchema,
  sessionLogprobsResultSchema,
  sessionLogprobsSchema,
  sessionSampleResultSchema,
  sessionSampleSchema,
  sessionSchema,
} from "./schemas.ts";
import type { TrainingSessionService } from "./service.ts";

const path = "/v1/training/sessions";
const one = `${path}/{id}`;
const common = { tags: ["Training"], middleware: [requireScope("train")] };
const params = z.object({ id: sessionIdSchema });

const create = createRoute({
  ...common,
  method: "post",
  path,
  summary: "Open a training session",
  description:
    "Weights that learn from the calls below: a new LoRA adapter, one that exists, or every parameter. A session lives in " +
    "memory: it ends with DELETE, at a restart and after an hour without a call (`session_lost`); `save` keeps what it learnt.",
  request: { body: jsonBody(createSessionSchema) },
  responses: { 201: jsonResponse(sessionSchema, "The session") },
});
const list = createRoute({
  ...common,
  method: "get",
  path,
  summary: "List open training sessions",
  request: { query: listQuery },
  responses: { 200: jsonResponse(sessionListSchema, "A page of sessions") },
});
const get = createRoute({
  ...common,
  method: "get",
  path: one,
  summary: "Get a training session",
  request: { params },
  responses: { 200: jsonResponse(sessionSchema, "The session") },
});
const forwardBackward = createRoute({
  ...common,
  method: "post",
  path: `${one}/forward_backward`,
  summary: "Compute a loss and add up its gradients",
  description:
    "Gradients of several calls add up until the next optim_step; each call is normalised by itself. A call that fails or whose " +
    "client leaves throws away the gradients that were there.",
  request: { params, body: jsonBody(lossSchema) },
  responses: { 200: jsonResponse(lossResultSchema, "The loss, and the log-probs of every token") },
});
const forward = createRoute({
  ...common,
  method: "post",
  path: `${one}/forward`,
  summary: "Compute a loss without gradients",
  request: { params, body: jsonBody(lossSchema) },
  responses: { 200: jsonResponse(lossResultSchema, "The same numbers as forward_backward") },
});
const optimStep = createRoute({
  ...common,
  method: "post",
  path: `${one}/optim_step`,
  summary: "Use the gradients up in one AdamW step",
  request: { params, body: jsonBody(optimStepSchema) },
  responses: { 200: jsonResponse(optimStepResultSchema, "Steps so far, and the gradients' norm before clipping") },
});
const sample = createRoute({
  ...common,
  method: "post",
  path: `${one}/sample`,
  summary: "Sample from the current weights",
  description: "In the precision of training, so that the log-probs are those that forward_backward computes.",
  request: { params, body: jsonBody(sessionSampleSchema) },
  responses: { 200: jsonResponse(sessionSampleResultSchema, "Token ids with their log-probs") },
});
const logprobs = createRoute({
  ...common,
  method: "post",
  path: `${one}/logprobs`,
  summary: "Score tokens with the current weights",
  request: { params, body: jsonBody(sessionLogprobsSchema) },
  responses: { 200: jsonResponse(sessionLogprobsResultSchema, "Per sequence, one entry per token") },
});
const save = createRoute({
  ...common,
  method: "post",
  path: `${one}/save`,
  summary: "Save the current weights",
  description: "An adapter in PEFT's layout, or a whole checkpoint. The body may be left out.",
  request: { params, body: { ...jsonBody(saveSchema), required: false as const } },
  responses: { 201: jsonResponse(checkpointSchema, "What was saved") },
});
const remove = createRoute({
  ...common,
  method: "delete",
  path: one,
  summary: "End a training session",
  request: { params },
  responses: { 200: jsonResponse(deletedSchema, "It is gone; what it saved stays") },
});

export const trainingSessionRoutes =
  ({ sessions }: { sessions: TrainingSessionService }): RouteModule =>
  (app) => {
    app.openapi(create, async (c) => c.json(await sessions.create(c.req.valid("json"), callerOf(c)), 201));
    app.openapi(list, (c) => {
      const { data, hasMore } = sessions.page(c.req.valid("query"));
      return c.json(toList(data, hasMore), 200);
    });
    app.openapi(get, (c) => c.json(sessions.get(c.req.valid("param").id), 200));
    app.openapi(forwardBackward, async (c) =>
      c.json(await sessions.forwardBackward(c.req.valid("param").id, c.req.valid("json"), callerOf(c)), 200),
    );
    app.openapi(forward, async (c) =>
      c.json(await sessions.forward(c.req.valid("param").id, c.req.valid("json"), callerOf(c)), 200),
    );
    app.openapi(optimStep, async (c) =>
      c.json(await sessions.optimStep(c.req.valid("param").id, c.req.valid("json")), 200),
    );
    app.openapi(sample, async (c) =>
      c.json(await sessions.sample(c.req.valid("param").id, c.req.valid("json"), callerOf(c)), 200),
    );
    app.openapi(logprobs, async (c) =>
      c.json(await sessions.logprobs(c.req.valid("param").id, c.req.valid("json"), callerOf(c)), 200),
    );
    app.openapi(save, async (c) => {
      // Absent where the request had no body.
      const { state = false } = c.req.valid("json") ?? {};
      return c.json(await sessions.save(c.req.valid("param").id, { state }), 201);
    });
    app.openapi(remove, async (c) => {
      const { id } = c.req.valid("param");
      await sessions.remove(id);
      return c.json({ id, object: "training.session", deleted: true as const }, 200);
    });
  };
