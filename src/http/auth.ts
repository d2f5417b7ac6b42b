/** Bearer keys. Only hashes are compared and kept, and the comparison takes the same time wherever it fails. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { fail } from "../errors.ts";
import { LOCAL, remoteAddress } from "./client.ts";
import type { ApiEnv, Principal, Scope } from "./context.ts";

/** Who a key belongs to, or null. Several keys in a database join as another implementation of this. */
export type Authenticator = (key: string) => Promise<Principal | null> | Principal | null;

const ADMIN: Principal = { id: "key_admin", scopes: new Set(["explain", "score", "train", "admin"]) };

/** Load balancers have no key. */
const OPEN_PATHS = new Set(["/healthz", "/readyz"]);
/** Pages that a person opens: a browser cannot send Bearer by itself, so the key is also taken as a Basic password. */
const PAGES = /^\/(docs(\/.*)?|openapi\.json|assets\/.*)?$/;
const LOOPBACK_ADDRESSES = new Set(["127.0.0.1", "::1", "::ffff:127.0.0.1"]);

export function createKeyAuthenticator(adminKey: string): Authenticator {
  const expected = sha256(adminKey);
  return (key) => (timingSafeEqual(sha256(key), expected) ? ADMIN : null);
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

export interface AuthOptions {
  authenticate: Authenticator | null;
  /** Lets a scraper on this machine read /metrics without a key. */
  metricsOpenOnLoopback?: boolean | undefined;
}

export function auth({ authenticate, metricsOpenOnLoopback }: AuthOptions): MiddlewareHandler<ApiEnv> {
  return async function auth(c, next) {
    const { path } = c.req;
    const header = c.req.header("authorization");
    if (authenticate === null || OPEN_PATHS.has(path)) {
      c.set("principal", LOCAL);
    } else if (metricsOpenOnLoopback && path === "/metrics" && LOOPBACK_ADDRESSES.has(remoteAddress(c.env))) {
      c.set("principal", LOCAL);
    } else {
      const page = PAGES.test(path) && c.req.method === "GET";
      const key = bearer(header) ?? (page ? basicPassword(header) : undefined);
      c.header("WWW-Authenticate", page ? 'Basic realm="Preceptor: any user, the API key as password"' : "Bearer");
      if (key === undefined)
        throw fail("missing_api_key", "This server needs an API key: Authorization: Bearer <key>.");
      const principal = await authenticate(key);
      if (!principal) throw fail("invalid_api_key", "This API key is not known here.");
      c.header("WWW-Authenticate", undefined);
      c.set("principal", principal);
    }
    await next();
  };
}

/** For `middleware: [requireScope("explain")]` in a route. `admin` may do everything. */
export function requireScope(scope: Scope): MiddlewareHandler<ApiEnv> {
  return async function requireScope(c, next) {
    const { scopes } = c.var.principal;
    if (!scopes.has(scope) && !scopes.has("admin")) {
      throw fail("insufficient_scope", `This key may not do this: it lacks the scope "${scope}".`);
    }
    await next();
  };
}

function bearer(header: string | undefined): string | undefined {
  return header?.match(/^Bearer +(\S+)\s*$/i)?.[1];
}

function basicPassword(header: string | undefined): string | undefined {
  const encoded = header?.match(/^Basic +(\S+)\s*$/i)?.[1];
  const text = encoded === undefined ? "" : Buffer.from(encoded, "base64").toString("utf8");
  return text.includes(":") ? text.slice(text.indexOf(":") + 1) : undefined;
}
