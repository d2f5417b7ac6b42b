/** Which routes create something: those whose document says that they answer 201 or 202. */
import { TrieRouter } from "hono/router/trie-router";
import type { ApiApp } from "./context.ts";

interface Responses {
  responses?: object | undefined;
}

export function creates({ responses = {} }: Responses): boolean {
  return "201" in responses || "202" in responses;
}

/** Tells for a path of a POST whether it creates. Built at the first question: by then every route is mounted. */
export function creatingRoutes(app: ApiApp): (path: string) => boolean {
  let routes: TrieRouter<true> | undefined;
  return (path) => {
    if (!routes) {
      routes = new TrieRouter();
      for (const definition of app.openAPIRegistry.definitions) {
        if (definition.type !== "route") continue;
        const { method, path: pattern } = definition.route;
        if (method === "post" && creates(definition.route)) {
          routes.add("POST", pattern.replaceAll(/\{(\w+)\}/g, ":$1"), true);
        }
      }
    }
    return routes.match("POST", path)[0].length > 0;
  };
}
