/** The types every route sees. */
import type { Hash } from "node:crypto";
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { Logger } from "pino";

export type Scope = "explain" | "score" | "train" | "admin";

/** Who is asking. `admin` includes every other scope. */
export interface Principal {
  id: string;
  scopes: ReadonlySet<Scope>;
}

export interface ApiEnv {
  Variables: {
    requestId: string;
    /** Carries the request id into every line. */
    log: Logger;
    principal: Principal;
    /** Aborted when the server ends its open streams (see lifecycle.ts). */
    streamsEnding: AbortSignal;
    /** Of a request with an Idempotency-Key: whoever reads its form adds what it reads. */
    formHash?: Hash;
    /** Set by streaming responses: settles when the last byte is handed over or the client left. */
    streamEnded?: Promise<StreamOutcome>;
  };
}

export type StreamOutcome = "completed" | "client_left" | "failed" | "server_closing";

export type ApiContext = Context<ApiEnv>;
export type ApiApp = OpenAPIHono<ApiEnv>;

/**
 * A resource mounts its routes on the one app. The pattern of `api/<resource>/routes.ts`:
 *
 *     const create = createRoute({
 *       method: "post", path: "/v1/things", tags: ["Things"], summary: "Make a thing",
 *       request: { body: jsonBody(createThingSchema) },                      // always jsonBody: the body is required
 *       responses: { 201: jsonResponse(thingSchema, "The thing") },          // errors are added to the document centrally
 *     });
 *     export const thingRoutes = (deps: { things: ThingService }): RouteModule => (app) => {
 *       app.openapi(create, async (c) => c.json(await deps.things.create(c.req.valid("json"), clientSignal(c)), 201));
 *     };
 *
 * Handlers throw `fail(code, …)`; nothing but http/errors.ts builds an error response. Paths are written whole
 * (`/v1/things/{id}`), there are no sub-apps. Streams: `sse(c, …)` and `openaiStream(c, …)`.
 */
export type RouteModule = (app: ApiApp) => void;

/** Aborted when the client closes its connection before the response is complete: hand it to every engine call. */
export function clientSignal(c: Context): AbortSignal {
  return c.req.raw.signal;
}
