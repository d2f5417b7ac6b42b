export interface ServerEvent {
  event: string;
  data: string;
}

/** Longest line of an event stream that is accepted: a whole explanation resource with tokens is far below it. */
const MAX_LINE_BYTES = 64 * 1024 * 1024;

/**
 * Server-sent events from UTF-8 chunks cut anywhere (WHATWG "event stream interpretation"): comments and `id:` are
 * skipped, several `data:` lines join with a newline, an event that the connection's end cuts off is dropped.
 */
export async function* parseEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent> {
  let event = "message";
  let data: string[] = [];
  for await (const line of lines(chunks)) {
    if (line === "") {
      if (data.length > 0) yield { event, data: data.join("\n") };
      event = "message";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    else if (field === "data") data.push(value);
  }
}

async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > MAX_LINE_BYTES) throw new Error("the event stream holds a line without an end");
    const parts = rest.split(/\r\n|\n|\r(?!$)/);
    rest = parts.pop() as string;
    yield* parts;
  }
}
