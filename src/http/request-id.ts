import type { MiddlewareHandler } from "hono";
import type { Logger } from "pino";
import { newId } from "../ids.ts";
import type { ApiEnv } from "./context.ts";

/** What a caller may bring as its own id: enough for UUIDs and trace ids, nothing that could forge a log line. */
const ACCEPTED = /^[\w.:=-]{1,128}$/;

/** Every response and every log line carries `x-request-id`: the caller's, when it is plausible, else a new one. */
export function requestId(log: Logger): MiddlewareHandler<ApiEnv> {
  return async function requestId(c, next) {
    const sent = c.req.header("x-request-id");
    const id = sent !== undefined && ACCEPTED.test(sent) ? sent : newId("req");
    c.set("requestId", id);
    c.set("log", log.child({ request_id: id }));
    c.header("x-request-id", id);
    await next();
  };
}
