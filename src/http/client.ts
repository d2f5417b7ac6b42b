/** Who is at the other end of a connection. */
import type { Caller } from "../caller.ts";
import { type ApiContext, clientSignal, type Principal } from "./context.ts";

/** Without a key the server listens on loopback only, and whoever can reach it may do everything. */
export const LOCAL: Principal = { id: "local", scopes: new Set(["explain", "score", "train", "admin"]) };

/**
 * The caller of a request. Its client is whose turn it is where requests wait: the key's owner, and for programs that
 * serve several people with one key the `user` they name (OpenAI's field); without keys the address of the connection
 * alone, since anybody may write anything into a field. Headers never count.
 */
export function callerOf(c: ApiContext, user?: string | null): Caller {
  const { principal } = c.var;
  const owner = principal === LOCAL ? remoteAddress(c.env) || LOCAL.id : principal.id;
  const client = principal !== LOCAL && user ? `${owner}/${user}` : owner;
  return { client, priority: "interactive", signal: clientSignal(c) };
}

/** node-server hands the socket over in `env`; "" when the app is called without a server. */
export function remoteAddress(env: unknown): string {
  const incoming = (env as { incoming?: { socket?: { remoteAddress?: string } } } | undefined)?.incoming;
  return incoming?.socket?.remoteAddress ?? "";
}
