import type { NotFoundHandler } from "hono";
import { TrieRouter } from "hono/router/trie-router";
import { fail } from "../errors.ts";
import { suggest } from "../suggest.ts";
import type { ApiApp, ApiEnv } from "./context.ts";
import { errorResponse } from "./errors.ts";

/** Unknown path: 404, with the nearest known one. Known path, other method: 405 with `Allow`. */
export function notFound(app: ApiApp): NotFoundHandler<ApiEnv> {
  let routes: TrieRouter<readonly string[]> | undefined;
  let paths: readonly string[] = [];
  return (c) => {
    // Built on first use: by then every route is mounted.
    if (!routes) {
      const methods = methodsByPath(app);
      routes = new TrieRouter();
      for (const [path, allowed] of methods) routes.add("ALL", path, allowed);
      paths = [...methods.keys()].filter((path) => !path.includes(":"));
    }
    const { method, path } = c.req;
    const allowed = [...new Set(routes.match("ALL", path)[0].flatMap(([list]) => list))];
    if (allowed.length > 0 && !allowed.includes(method)) {
      c.header("Allow", allowed.join(", "));
      return errorResponse(
        fail("method_not_allowed", `${method} is not possible on ${path}; possible: ${allowed.join(", ")}.`),
        c,
      );
    }
    const guess = suggest(path, paths);
    const hint = guess ? `Did you mean ${guess}?` : "GET /openapi.json lists all routes.";
    return errorResponse(fail("not_found", `There is no ${path.slice(0, 200)}. ${hint}`), c);
  };
}

function methodsByPath(app: ApiApp): Map<string, string[]> {
  const byPath = new Map<string, Set<string>>();
  for (const { method, path } of app.routes) {
    // Middleware is registered for all methods.
    if (method === "ALL") continue;
    const methods = byPath.get(path) ?? new Set();
    methods.add(method);
    if (method === "GET") methods.add("HEAD");
    byPath.set(path, methods);
  }
  return new Map([...byPath].map(([path, methods]) => [path, [...methods]]));
}
