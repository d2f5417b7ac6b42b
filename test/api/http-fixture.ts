/** A small app with one route of every kind, for the tests of src/http. */
import { createRoute, z } from "@hono/zod-openapi";
import { fail } from "../../src/errors.ts";
import { type AppDeps, createApp } from "../../src/http/app.ts";
import { requireScope } from "../../src/http/auth.ts";
import { type ApiApp, clientSignal, type RouteModule } from "../../src/http/context.ts";
import { listQuery, listSchema, toList } from "../../src/http/list.ts";
import {
  boundedArray,
  jsonBody,
  jsonOrEvents,
  jsonResponse,
  metadataSchema,
  slugSchema,
  tokenIds,
} from "../../src/http/schemas.ts";
import { type EventStream, openaiStream, sse } from "../../src/http/sse.ts";

const thing = z.object({ id: z.string(), value: z.number().nullable() }).openapi("Thing");
const createThing = z
  .strictObject({
    question: z.string(),
    solution: z.string().optional(),
    temperature: z.number().min(0).max(2).optional(),
    items: boundedArray(z.strictObject({ question: z.string() }), { max: 3 }).optional(),
    prompt: z.union([z.string(), tokenIds({ max: 5 }), boundedArray(z.string(), { max: 2 })]).optional(),
    format: z.union([z.enum(["stratos", "r1"]), z.strictObject({ prefix: z.string() })]).optional(),
    metadata: metadataSchema.optional(),
  })
  .openapi("CreateThing");

const create = createRoute({
  method: "post",
  path: "/v1/things/{id}",
  tags: ["Scores"],
  request: { params: z.object({ id: slugSchema }), body: jsonBody(createThing) },
  responses: { 201: jsonResponse(createThing, "The thing, echoed") },
});
const list = createRoute({
  method: "get",
  path: "/v1/things",
  tags: ["Scores"],
  request: { query: listQuery },
  responses: { 200: jsonResponse(listSchema("ThingList", thing), "Things") },
});
const stream = createRoute({
  method: "post",
  path: "/v1/streams",
  tags: ["Explanations"],
  request: { body: jsonBody(z.strictObject({ n: z.int(), stream: z.boolean().default(false) })) },
  responses: { 200: jsonOrEvents(thing, "A thing, or its events") },
});
const trainOnly = createRoute({
  method: "get",
  path: "/v1/train",
  middleware: [requireScope("train")],
  responses: { 200: jsonResponse(z.object({ by: z.string() }), "Who asked") },
});

export interface Hooks {
  /** What `/v1/events` and `GET /v1/data` run. */
  events?: (stream: EventStream) => Promise<void>;
  /** Sees the signal of `/v1/wait`, which never answers by itself. */
  waiting?: (signal: AbortSignal) => void;
}

export function thingRoutes(hooks: Hooks = {}): RouteModule {
  const things = Array.from({ length: 3 }, (_, i) => ({ id: `thing_${i}`, value: i === 0 ? null : i }));
  return (app) => {
    app.openapi(create, (c) => {
      if (c.req.valid("param").id === "taken") throw fail("conflict", "There is a thing of this name.");
      return c.json(c.req.valid("json"), 201);
    });
    app.openapi(list, (c) => {
      const { limit } = c.req.valid("query");
      return c.json(toList(things.slice(0, limit), limit < things.length), 200);
    });
    app.openapi(stream, (c) => {
      const { n, stream: streamed } = c.req.valid("json");
      if (!streamed) return c.json({ id: "thing_x", value: n }, 200);
      return sse(c, async ({ send }) => {
        for (let i = 0; i < n; i++) await send("thing.delta", { i });
        await send("thing.completed", { value: n });
      });
    });
    app.openapi(trainOnly, (c) => c.json({ by: c.var.principal.id }, 200));
    app.on(["GET", "POST"], "/v1/events", (c) => sse(c, hooks.events ?? (() => Promise.resolve()), { pingMs: 50 }));
    app.get("/v1/data", (c) =>
      openaiStream(c, async ({ send }) => {
        for (const letter of ["a", "b"]) await send({ letter });
        if (c.req.query("fail")) throw fail("engine_failed", "The engine stopped.");
      }),
    );
    app.on(["GET", "POST"], "/v1/wait", async (c) => {
      const signal = clientSignal(c);
      hooks.waiting?.(signal);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw new Error("went on after the client left");
    });
    app.get("/v1/fault", () => {
      throw new Error("select secret from keys");
    });
    app.get("/v1/busy", () => {
      throw fail("queue_full", "Too many requests wait.", { retryAfterSeconds: 7 });
    });
    app.get("/v1/nan", (c) => c.json({ value: Number.NaN }));
  };
}

export function testApp(deps: Partial<AppDeps> = {}, hooks: Hooks = {}): ApiApp {
  return createApp({ authenticate: null, routes: [thingRoutes(hooks)], ...deps });
}

export interface WireError {
  error: { message: string; type: string; param: string | null; code: string };
}

export async function errorOf(response: Response): Promise<WireError["error"] & { status: number }> {
  const body = (await response.json()) as WireError;
  return { status: response.status, ...body.error };
}
