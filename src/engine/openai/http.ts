/** One HTTP exchange, with connections kept open between exchanges: what is nearest to the wire adds least to a token. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";

export interface HttpRequest {
  method: "GET" | "POST";
  headers: Readonly<Record<string, string>>;
  body: string | undefined;
  signal: AbortSignal;
}

/** Resolves with the head of the answer; redirects are answers like others. Rejects with the error of socket or signal. */
export type SendHttp = (url: string, request: HttpRequest) => Promise<IncomingMessage>;

/** Longer than the pause between two requests of a busy client, shorter than servers keep idle connections (uvicorn: 5 s). */
const IDLE_SOCKET_MS = 4_000;

export function createHttp(): SendHttp {
  const agents = {
    "http:": new HttpAgent({ keepAlive: true, timeout: IDLE_SOCKET_MS }),
    "https:": new HttpsAgent({ keepAlive: true, timeout: IDLE_SOCKET_MS }),
  };

  return async function send(url, request): Promise<IncomingMessage> {
    const { protocol } = new URL(url);
    const secure = protocol === "https:";
    try {
      return await exchange(secure ? httpsRequest : httpRequest, url, request, agents[secure ? "https:" : "http:"]);
    } catch (error) {
      // The server closed a connection that was kept open at the moment it was to be used again: nothing was begun.
      if (error instanceof StaleSocket) return send(url, request);
      throw error;
    }
  };
}

class StaleSocket extends Error {}

function exchange(
  request: typeof httpRequest,
  url: string,
  { method, headers, body, signal }: HttpRequest,
  agent: HttpAgent,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const bytes = body === undefined ? undefined : Buffer.from(body);
    const outgoing = request(url, {
      method,
      agent,
      signal,
      headers: bytes ? { ...headers, "content-length": bytes.length } : headers,
    });
    outgoing.on("response", resolve);
    outgoing.on("error", (error: NodeJS.ErrnoException) => {
      const stale = outgoing.reusedSocket && (error.code === "ECONNRESET" || error.code === "EPIPE");
      reject(stale && !signal.aborted ? new StaleSocket() : error);
    });
    // An agent's socket may fall silent for as long as the caller is patient.
    outgoing.on("socket", (socket) => socket.setTimeout(0));
    outgoing.end(bytes);
  });
}
