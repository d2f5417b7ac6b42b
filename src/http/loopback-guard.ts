/**
 * Without a key the server trusts everything on this machine, and that includes the user's browser. Two checks keep
 * web pages out: the Host must be a loopback name (else a page could rebind its own name to 127.0.0.1), and a
 * cross-origin request must come from an allowed origin (else any page could post to localhost).
 */
import type { MiddlewareHandler } from "hono";
import { fail } from "../errors.ts";
import type { ApiEnv } from "./context.ts";

const LOOPBACK = /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|\[::1\])$/i;

export function loopbackGuard(corsOrigins: readonly string[]): MiddlewareHandler<ApiEnv> {
  return async function loopbackGuard(c, next) {
    const url = new URL(c.req.url);
    if (!LOOPBACK.test(url.hostname)) {
      throw fail(
        "origin_not_allowed",
        `Without an API key this server answers on loopback names only, not as "${url.hostname.slice(0, 100)}". Set PRECEPTOR_API_KEY to be reached under another name.`,
      );
    }
    const origin = c.req.header("origin");
    if (origin !== undefined && origin !== url.origin && !corsOrigins.includes(origin)) {
      throw fail(
        "origin_not_allowed",
        "Requests from other web origins are refused; PRECEPTOR_CORS_ORIGINS lists the allowed ones.",
      );
    }
    await next();
  };
}
