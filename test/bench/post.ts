import { Agent, type IncomingMessage, request } from "node:http";

/** A connection per request: the server sees its clients come and go, and none waits for another's response. */
const agent = new Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY });

export interface PostOptions {
  /** Aborting it cuts the connection, as a client that leaves does. */
  signal?: AbortSignal;
  /** Another address of this machine to come from (127.0.0.2): without keys, the server tells its clients apart by it. */
  localAddress?: string | undefined;
}

/**
 * Sends JSON and resolves with the head of the response. Unlike `fetch` it has no time limits, for what stands in a queue
 * waits for minutes, and the body is read as slowly as the caller reads it: TCP holds the server back.
 */
export function post(url: string, body: unknown, options: PostOptions = {}): Promise<IncomingMessage> {
  const bytes = Buffer.from(JSON.stringify(body));
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": bytes.length };
    request(url, { method: "POST", agent, headers, ...options })
      .on("response", resolve)
      .on("error", reject)
      .end(bytes);
  });
}

export async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of response) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks).toString("utf8");
}
