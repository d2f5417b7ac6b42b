/** JSON lines, in bounded memory: a line that is too long is passed over, and the next one is read. */
import { MAX_LINE_BYTES } from "./limits.ts";
import type { RawRow } from "./row.ts";

const NEWLINE = 0x0a;
export const TOO_LONG = `is longer than ${MAX_LINE_BYTES} bytes: a row ends with its line`;
export const NOT_UTF8 = "is not valid UTF-8; save the file as UTF-8";

/** Yields a fault for every line that is no JSON; empty lines are passed over but counted. */
export async function* readJsonl(bytes: AsyncIterable<Buffer>, maxLine = MAX_LINE_BYTES): AsyncGenerator<RawRow> {
  let line = 1;
  for await (const { text, tooLong } of splitLines(bytes, maxLine)) {
    const row = tooLong ? { line, fault: TOO_LONG } : parseLine(text, line);
    if (row) yield row;
    line++;
  }
}

function parseLine(bytes: Buffer, line: number): RawRow | undefined {
  const text = decodeUtf8(line === 1 ? withoutMark(bytes) : bytes);
  if (text === undefined) return { line, fault: NOT_UTF8 };
  if (text.trim() === "") return undefined;
  try {
    return { line, value: JSON.parse(text) };
  } catch (error) {
    // V8 quotes the text around the fault, which may be long.
    return { line, fault: `is not valid JSON: ${(error as Error).message.slice(0, 120)}` };
  }
}

async function* splitLines(
  bytes: AsyncIterable<Buffer>,
  maxLine: number,
): AsyncGenerator<{ text: Buffer; tooLong: boolean }> {
  let parts: Buffer[] = [];
  let size = 0;
  const add = (part: Buffer): void => {
    size += part.length;
    if (size <= maxLine) parts.push(part);
    else parts = [];
  };
  const take = (): { text: Buffer; tooLong: boolean } => {
    const taken = { text: parts.length === 1 ? parts[0]! : Buffer.concat(parts), tooLong: size > maxLine };
    parts = [];
    size = 0;
    return taken;
  };
  for await (const chunk of bytes) {
    let begin = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, begin)) {
      add(chunk.subarray(begin, end));
      yield take();
      begin = end + 1;
    }
    if (begin < chunk.length) add(chunk.subarray(begin));
  }
  if (size > 0) yield take();
}

/** undefined: not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return STRICT.decode(bytes);
  } catch {
    return undefined;
  }
}

const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Without a byte order mark, which Excel and Notepad write. */
export function withoutMark(bytes: Buffer): Buffer {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}
