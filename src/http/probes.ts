import { createRoute, z } from "@hono/zod-openapi";
import type { RouteModule } from "./context.ts";
import type { Lifecycle } from "./lifecycle.ts";
import { jsonResponse } from "./schemas.ts";

/** A check that takes longer than this has failed: an orchestrator's probe gives up about then. */
const CHECK_TIMEOUT_MS = 2_000;

/** Resolves when the thing works; rejects otherwise. */
export type ReadinessChecks = Readonly<Record<string, () => Promise<void>>>;

const healthy = z.object({ status: z.literal("ok") }).openapi("Health");
const readiness = z
  .object({
    status: z.enum(["ready", "not_ready"]),
    checks: z
      .record(z.string(), z.enum(["ok", "failed", "draining"]))
      .openapi({ description: "What was looked at; anything but ok keeps the server from being ready." }),
  })
  .openapi("Readiness");
const version = z.object({ name: z.literal("preceptor"), version: z.string(), node: z.string() }).openapi("Version");

const tags = ["Server"];
const healthz = createRoute({
  method: "get",
  path: "/healthz",
  tags,
  security: [],
  summary: "The process lives",
  responses: { 200: jsonResponse(healthy, "Alive") },
});
const readyz = createRoute({
  method: "get",
  path: "/readyz",
  tags,
  security: [],
  summary: "The server can take work",
  description: "The database answers and the server is not shutting down. Otherwise 503 with what is missing.",
  responses: { 200: jsonResponse(readiness, "Ready"), 503: jsonResponse(readiness, "Not ready, and why") },
});
const versionRoute = createRoute({
  method: "get",
  path: "/version",
  tags,
  summary: "Version of the server",
  responses: { 200: jsonResponse(version, "Version") },
});

export function probeRoutes(deps: { version: string; lifecycle: Lifecycle; checks: ReadinessChecks }): RouteModule {
  return (app) => {
    app.openapi(healthz, (c) => c.json({ status: "ok" as const }, 200));
    app.openapi(readyz, async (c) => {
      const checks: Record<string, "ok" | "failed" | "draining"> = Object.fromEntries(
        await Promise.all(
          Object.entries(deps.checks).map(async ([name, check]) => {
            const ok = await passes(check);
            if (ok !== true) c.var.log.warn({ err: ok, check: name }, "readiness check failed");
            return [name, ok === true ? "ok" : "failed"] as const;
          }),
        ),
      );
      checks.server = deps.lifecycle.draining ? "draining" : "ok";
      const ready = Object.values(checks).every((state) => state === "ok");
      if (ready) return c.json({ status: "ready" as const, checks }, 200);
      c.header("Retry-After", "5");
      return c.json({ status: "not_ready" as const, checks }, 503);
    });
    app.openapi(versionRoute, (c) =>
      c.json({ name: "preceptor" as const, version: deps.version, node: process.version }, 200),
    );
  };
}

async function passes(check: () => Promise<void>): Promise<true | unknown> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${CHECK_TIMEOUT_MS} ms`)), CHECK_TIMEOUT_MS);
  });
  try {
    await Promise.race([check(), late]);
    return true;
  } catch (error) {
    return error;
  } finally {
    clearTimeout(timer);
  }
}
