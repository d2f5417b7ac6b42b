/**
 * multipart/form-data (RFC 7578) as a stream: a file goes where the caller says while it arrives, and never lies whole in
 * memory (`Request.formData()` would hold it). Parts come one after another; each must be read before the next.
 */
import { fail } from "../errors.ts";

export interface Part {
  name: string;
  /** undefined: a field, not a file. */
  filename: string | undefined;
  contentType: string | undefined;
  /** Ends with the part. */
  body: AsyncIterable<Buffer>;
}

/** A part has three headers; more than this is no form. */
const MAX_HEADER_BYTES = 16 * 1024;
/** RFC 2046: 70 characters at most; some clients go beyond. */
const MAX_BOUNDARY = 200;
const STALL_MS = 60_000;
const CRLF2 = Buffer.from("\r\n\r\n");

export function boundaryOf(contentType: string): string {
  const [, quoted, plain] = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i.exec(contentType) ?? [];
  const boundary = quoted ?? plain;
  if (boundary === undefined || boundary.length > MAX_BOUNDARY) {
    throw malformed("the Content-Type names no boundary; let your HTTP client write this header");
  }
  return boundary;
}

/** Throws `invalid_request` where the body is no form, or ends in the middle. */
export async function* readMultipart(body: AsyncIterable<Uint8Array>, boundary: string): AsyncGenerator<Part> {
  const input = createInput(body);
  try {
    yield* readParts(input, boundary);
  } finally {
    // The rest of a body that was refused is not wanted.
    input.leave();
  }
}

async function* readParts(input: Input, boundary: string): AsyncGenerator<Part> {
  // The first delimiter has no line end before it where nothing precedes it.
  input.prepend(Buffer.from("\r\n"));
  const delimiter = Buffer.from(`\r\n--${boundary}`);
  for await (const _ of input.until(delimiter)) {
    // What stands before the first part is for readers that know no multipart.
  }
  while (!(await ends(input))) {
    const { disposition, contentType } = headersOf(await input.head(CRLF2, MAX_HEADER_BYTES));
    const name = parameter(disposition, "name");
    if (name === undefined) throw malformed("a part has no name");
    const part = input.until(delimiter);
    yield { name, filename: parameter(disposition, "filename"), contentType, body: part };
    // What the caller left unread.
    for await (const _ of part);
  }
}

/** Behind a delimiter: "--" ends the form, a line end begins a part. */
async function ends(input: Input): Promise<boolean> {
  const mark = await input.take(2);
  if (mark.toString("latin1") === "--") return true;
  let line = mark;
  // Blanks may stand before the line end.
  while (line.toString("latin1") !== "\r\n") {
    if (line[0] !== 0x20 && line[0] !== 0x09) throw malformed("a boundary is not followed by a line end");
    line = Buffer.concat([line.subarray(1), await input.take(1)]);
  }
  // So that a part without headers has the empty line that ends them.
  input.prepend(Buffer.from("\r\n"));
  return false;
}

interface Input {
  prepend(bytes: Buffer): void;
  take(count: number): Promise<Buffer>;
  head(end: Buffer, max: number): Promise<string>;
  /** Everything up to `mark`, which is passed over. Read again after its end, it yields nothing. */
  until(mark: Buffer): AsyncGenerator<Buffer>;
  leave(): void;
}

function createInput(body: AsyncIterable<Uint8Array>): Input {
  const source = body[Symbol.asyncIterator]();
  let held: Buffer = Buffer.alloc(0);
  async function more(): Promise<void> {
    const { done, value } = await arriving(source.next());
    if (done) throw malformed("the form ends before its last boundary");
    const arrived = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    held = held.length === 0 ? arrived : Buffer.concat([held, arrived]);
  }
  return {
    leave: () => void Promise.resolve(source.return?.()).catch(() => undefined),
    prepend(bytes) {
      held = Buffer.concat([bytes, held]);
    },
    async take(count) {
      while (held.length < count) await more();
      const taken = held.subarray(0, count);
      held = held.subarray(count);
      return taken;
    },
    async head(end, max) {
      for (let at = held.indexOf(end); ; at = held.indexOf(end)) {
        if (at > max || (at === -1 && held.length > max)) throw malformed("the headers of a part are too long");
        if (at === -1) {
          await more();
          continue;
        }
        const head = held.toString("utf8", 0, at);
        held = held.subarray(at + end.length);
        return head;
      }
    },
    async *until(mark) {
      for (let at = held.indexOf(mark); at === -1; at = held.indexOf(mark)) {
        // The mark may have begun in the last bytes.
        const sure = Math.max(0, held.length - mark.length + 1);
        const piece = held.subarray(0, sure);
        held = held.subarray(sure);
        if (piece.length > 0) yield piece;
        await more();
      }
      const end = held.indexOf(mark);
      const last = held.subarray(0, end);
      held = held.subarray(end + mark.length);
      if (last.length > 0) yield last;
    },
  };
}

/** A long upload is welcome, one that stands still holds a connection and a file for nobody. */
async function arriving<T>(next: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const stalled = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(malformed(`nothing came for ${STALL_MS / 1000} seconds`)), STALL_MS);
  });
  try {
    return await Promise.race([next, stalled]);
  } finally {
    clearTimeout(timer);
  }
}

function headersOf(head: string): { disposition: string; contentType: string | undefined } {
  const headers = new Map<string, string>();
  for (const line of head.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }
  return { disposition: headers.get("content-disposition") ?? "", contentType: headers.get("content-type") };
}

/** Browsers write a quote as %22, curl as \". */
function parameter(disposition: string, name: string): string | undefined {
  const [, quoted, plain] =
    new RegExp(`;\\s*${name}=(?:"((?:[^"\\\\]|\\\\.)*)"|([^\\s;]+))`, "i").exec(disposition) ?? [];
  return quoted === undefined ? plain : quoted.replace(/\\(["\\])/g, "$1").replaceAll("%22", '"');
}

function malformed(what: string): Error {
  return fail("invalid_request", `The multipart body cannot be read: ${what}.`);
}
