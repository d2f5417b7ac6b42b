export interface ServerEvent {
  event: string;
  data: string;
}

/** Largest event that is accepted, in UTF-16 units: a whole explanation resource with tokens is far below it. */
const MAX_EVENT_CHARS = 64 * 1024 * 1024;

/**
 * Server-sent events from UTF-8 chunks cut anywhere (WHATWG "event stream interpretation"): comments and `id:` are
 * skipped, several `data:` lines join with a newline, an event that the connection's end cuts off is dropped.
 */
export async function* parseEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent> {
  let event = "message";
  let data: string[] = [];
  let size = 0;
  for await (const line of lines(chunks)) {
    if (line === "") {
      if (data.length > 0) yield { event, data: data.join("\n") };
      event = "message";
      data = [];
      size = 0;
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    else if (field === "data") {
      // Lines without content take room too.
      size += line.length;
      if (size > MAX_EVENT_CHARS) throw tooLarge();
      data.push(value);
    }
  }
}

async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  // Only ever appended to: looking into it with every chunk would take quadratic time.
  let rest = "";
  let afterReturn = false;
  for await (const chunk of chunks) {
    const decoded: string = decoder.decode(chunk, { stream: true });
    if (decoded === "") continue;
    // The second half of a CRLF that was cut.
    const text: string = afterReturn && decoded.startsWith("\n") ? decoded.slice(1) : decoded;
    afterReturn = text.endsWith("\r");
    const [first, ...more] = text.split(/\r\n|\n|\r/) as [string, ...string[]];
    rest += first;
    if (rest.length > MAX_EVENT_CHARS) throw tooLarge();
    const last = more.pop();
    if (last === undefined) continue;
    yield rest;
    yield* more;
    rest = last;
  }
}

function tooLarge(): Error {
  return new Error(`the event stream holds an event of more than ${MAX_EVENT_CHARS} characters`);
}
