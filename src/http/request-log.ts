import type { MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import type { ApiContext, ApiEnv, StreamOutcome } from "./context.ts";
import type { Metrics } from "./metrics.ts";

/** Probes come every few seconds for ever; they are logged at debug. */
const QUIET = new Set(["/healthz", "/readyz", "/metrics"]);

/** One line and one observation per request; for a stream when it ends, with how it ended. Queries are not logged. */
export function requestLog(metrics: Metrics): MiddlewareHandler<ApiEnv> {
  return async function requestLog(c, next) {
    const begin = performance.now();
    await next();
    const { status } = c.res;
    const record = (outcome?: StreamOutcome): void => {
      const seconds = (performance.now() - begin) / 1000;
      metrics.observeRequest({ method: c.req.method, route: routeOf(c), status, seconds });
      const line = { method: c.req.method, path: c.req.path, status, duration_ms: Math.round(seconds * 1000) };
      const level = QUIET.has(c.req.path) && status < 500 ? "debug" : "info";
      c.var.log[level](outcome === undefined ? line : { ...line, stream: outcome }, "request");
    };
    const streamEnded = c.get("streamEnded");
    if (streamEnded) void streamEnded.then(record);
    else record();
  };
}

/** The pattern of the route that answered (`/v1/teachers/:id`), so that labels stay few whatever callers send. */
function routeOf(c: ApiContext): string {
  return (
    matchedRoutes(c)
      .map(({ path }) => path)
      .findLast((path) => !path.endsWith("*")) ?? "unmatched"
  );
}
