import { createRoute, z } from "@hono/zod-openapi";
import type { Caller, QueuePlace } from "../../caller.ts";
import { callerOf } from "../../http/client.ts";
import type { RouteModule } from "../../http/context.ts";
import { listSchema } from "../../http/list.ts";
import { jsonBody, jsonOrEvents, jsonResponse } from "../../http/schemas.ts";
import { type DataStream, openaiStream } from "../../http/sse.ts";
import type { ChatCompletions } from "./chat.ts";
import type { Completions } from "./completions.ts";
import type { GenerationCaller } from "./generate.ts";
import type { OpenaiModels } from "./models.ts";
import { chatCompletionSchema, chatRequestSchema } from "./schemas-chat.ts";
import { completionRequestSchema, completionSchema } from "./schemas-completions.ts";
import { openaiModelSchema } from "./schemas-models.ts";
import {
  detokenizeRequestSchema,
  detokenizeResponseSchema,
  tokenizeRequestSchema,
  tokenizeResponseSchema,
} from "./schemas-tokenize.ts";
import type { Tokenization } from "./tokenize.ts";

const tags = ["OpenAI-compatible"];

const listModels = createRoute({
  method: "get",
  path: "/v1/models",
  tags,
  summary: "List the registered models",
  responses: { 200: jsonResponse(listSchema("ModelList", openaiModelSchema), "Teachers and students") },
});

const getModel = createRoute({
  method: "get",
  path: "/v1/models/{model}",
  tags,
  summary: "One registered model",
  request: { params: z.object({ model: z.string() }) },
  responses: { 200: jsonResponse(openaiModelSchema, "The model") },
});

const completions = createRoute({
  method: "post",
  path: "/v1/completions",
  tags,
  summary: "Continue a text, or score it",
  description:
    "OpenAI's completions with vLLM's extensions for token ids and prompt log-probs. With `stream` the answer is " +
    "`data:` lines of chunks, the last one `data: [DONE]`; while a prompt waits for its turn, comment lines say so: " +
    "`: queued position=3 reason=slots` (1 is next). Too much at once is refused with 429 `queue_full` (this client) or 503 " +
    "`overloaded` (everybody together) and `Retry-After`.",
  request: { body: jsonBody(completionRequestSchema) },
  responses: { 200: jsonOrEvents(completionSchema, "The completion, or its chunks") },
});

const chatCompletions = createRoute({
  method: "post",
  path: "/v1/chat/completions",
  tags,
  summary: "Answer a chat",
  description:
    "The messages are rendered with the model's own chat template. With `stream` the answer is `data:` lines of " +
    "chunks, the last one `data: [DONE]`, with comment lines while it waits (see /v1/completions).",
  request: { body: jsonBody(chatRequestSchema) },
  responses: { 200: jsonOrEvents(chatCompletionSchema, "The completion, or its chunks") },
});

const tokenize = createRoute({
  method: "post",
  path: "/v1/tokenize",
  tags,
  summary: "Token ids of a text or a chat",
  request: { body: jsonBody(tokenizeRequestSchema) },
  responses: { 200: jsonResponse(tokenizeResponseSchema, "The ids") },
});

const detokenize = createRoute({
  method: "post",
  path: "/v1/detokenize",
  tags,
  summary: "The text of token ids",
  request: { body: jsonBody(detokenizeRequestSchema) },
  responses: { 200: jsonResponse(detokenizeResponseSchema, "The text") },
});

/** Clients of OpenAI know no event for waiting, so a comment says where a request stands. */
function listening(caller: Caller, { signal, comment }: DataStream): GenerationCaller {
  const queued = ({ position, reason }: QueuePlace): void => comment(`queued position=${position} reason=${reason}`);
  return { ...caller, signal, queued };
}

export interface OpenaiDeps {
  models: OpenaiModels;
  completions: Completions;
  chat: ChatCompletions;
  tokenization: Tokenization;
}

export const openaiRoutes =
  (deps: OpenaiDeps): RouteModule =>
  (app) => {
    app.openapi(listModels, async (c) => c.json(await deps.models.list(), 200));
    app.openapi(getModel, async (c) => c.json(await deps.models.get(c.req.valid("param").model), 200));
    app.openapi(completions, async (c) => {
      const body = c.req.valid("json");
      const caller = callerOf(c, body.user);
      if (!body.stream) return c.json(await deps.completions.complete(body, caller), 200);
      return openaiStream(c, async (stream) => {
        const listener = listening(caller, stream);
        for await (const chunk of deps.completions.stream(body, listener)) await stream.send(chunk);
      });
    });
    app.openapi(chatCompletions, async (c) => {
      const body = c.req.valid("json");
      const caller = callerOf(c, body.user);
      if (!body.stream) return c.json(await deps.chat.complete(body, caller), 200);
      return openaiStream(c, async (stream) => {
        const listener = listening(caller, stream);
        for await (const chunk of deps.chat.stream(body, listener)) await stream.send(chunk);
      });
    });
    app.openapi(tokenize, async (c) => c.json(await deps.tokenization.tokenize(c.req.valid("json")), 200));
    app.openapi(detokenize, async (c) => c.json(await deps.tokenization.detokenize(c.req.valid("json")), 200));
  };
