/** The HTTP application: one visible order of middleware, then the resources it is given. */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { type Logger, pino } from "pino";
import { DEFAULT_MAX_BODY_MB } from "../config/variables.ts";
import type { IdempotencyStore } from "../db/idempotency-store.ts";
import { fail } from "../errors.ts";
import { type Authenticator, auth } from "./auth.ts";
import type { ApiApp, ApiEnv, RouteModule } from "./context.ts";
import { creatingRoutes } from "./creating-routes.ts";
import { docsRoutes } from "./docs.ts";
import { errorResponse } from "./errors.ts";
import { idempotency } from "./idempotency.ts";
import { assertJson } from "./json.ts";
import { jsonBodyReader } from "./json-body.ts";
import { createLifecycle, type Lifecycle } from "./lifecycle.ts";
import { loopbackGuard } from "./loopback-guard.ts";
import { createMetrics, type Metrics, metricsRoutes } from "./metrics.ts";
import { notFound } from "./not-found.ts";
import { openapiRoutes } from "./openapi.ts";
import { probeRoutes, type ReadinessChecks } from "./probes.ts";
import { requestId } from "./request-id.ts";
import { requestLog } from "./request-log.ts";
import { installMessages, validationError } from "./validation.ts";

export interface AppDeps {
  /** The resources, in the order in which the document lists them. */
  routes: readonly RouteModule[];
  /** null: no key is configured; the server then answers loopback only. */
  authenticate: Authenticator | null;
  version?: string;
  log?: Logger;
  lifecycle?: Lifecycle;
  metrics?: Metrics;
  /** What `/readyz` asks, e.g. `{ database: () => database.ping() }`. */
  checks?: ReadinessChecks;
  /** Web origins that may call the API from a browser; none by default. */
  corsOrigins?: readonly string[];
  maxBodyBytes?: number;
  metricsOpenOnLoopback?: boolean;
  /** Where answers to requests with an Idempotency-Key are kept; without it keys are ignored. */
  idempotency?: IdempotencyStore;
  /** For tests: refuse to send NaN, Infinity and typed arrays instead of sending null and index objects. */
  strictJson?: boolean;
}

export function createApp(deps: AppDeps): ApiApp {
  installMessages();
  const {
    log = pino({ level: "silent" }),
    version = "0.0.0",
    lifecycle = createLifecycle(),
    metrics = createMetrics(),
    corsOrigins = [],
  } = deps;

  const app: ApiApp = new OpenAPIHono<ApiEnv>({
    defaultHook: (result) => {
      if (!result.success) throw validationError(result.error);
    },
  });
  app.onError((error, c) => errorResponse(error, c));
  app.notFound(notFound(app));

  app.use(requestId(log));
  app.use(requestLog(metrics));
  app.use(safeHeaders());
  if (corsOrigins.length > 0)
    app.use(cors({ origin: [...corsOrigins], exposeHeaders: ["x-request-id", "retry-after", "idempotent-replayed"] }));
  if (deps.authenticate === null) app.use(loopbackGuard(corsOrigins));
  app.use(auth(deps));
  app.use(refuseWhileDraining(lifecycle));
  app.use(jsonBodyReader(deps.maxBodyBytes ?? DEFAULT_MAX_BODY_MB * 1024 * 1024));
  if (deps.idempotency) app.use(idempotency(deps.idempotency, creatingRoutes(app)));
  if (deps.strictJson) app.use(strictJson());

  probeRoutes({ version, lifecycle, checks: deps.checks ?? {} })(app);
  metricsRoutes(metrics)(app);
  for (const mount of deps.routes) mount(app);
  openapiRoutes(version)(app);
  docsRoutes()(app);
  return app;
}

/** Probes and metrics answer to the end; everything else is told to come back. */
const ANSWER_WHILE_DRAINING = new Set(["/healthz", "/readyz", "/version", "/metrics"]);

function refuseWhileDraining(lifecycle: Lifecycle): MiddlewareHandler<ApiEnv> {
  return async function refuseWhileDraining(c, next) {
    c.set("streamsEnding", lifecycle.streamsEnding);
    if (lifecycle.draining && !ANSWER_WHILE_DRAINING.has(c.req.path)) {
      c.header("Connection", "close");
      throw fail("draining", "The server is shutting down; send the request again in a moment.");
    }
    await next();
  };
}

function safeHeaders(): MiddlewareHandler<ApiEnv> {
  return async function safeHeaders(c, next) {
    c.header("x-content-type-options", "nosniff");
    c.header("referrer-policy", "no-referrer");
    await next();
  };
}

function strictJson(): MiddlewareHandler<ApiEnv> {
  return async function strictJson(c, next) {
    const json = c.json.bind(c) as (...args: unknown[]) => Response;
    c.json = ((value: unknown, ...rest: unknown[]) => {
      assertJson(value);
      return json(value, ...rest);
    }) as typeof c.json;
    await next();
  };
}
