/**
 * CSV as RFC 4180 has it: commas, a header line, fields in double quotes where they hold commas, quotes (doubled) or line
 * ends. Bytes are split into records first (all marks are ASCII, so no letter is cut), then each record is decoded.
 */
import { decodeUtf8, NOT_UTF8, withoutMark } from "./jsonl.ts";
import { MAX_LINE_BYTES } from "./limits.ts";
import type { RawRow } from "./row.ts";

const QUOTE = 0x22;
const COMMA = 0x2c;
const NEWLINE = 0x0a;
/** More columns are no table of questions. */
const MAX_COLUMNS = 1_000;

interface CsvRecord {
  /** Where it begins. */
  line: number;
  bytes: Buffer;
  fault?: string;
}

/** An empty field is an absent one. `metadata` is a JSON object. */
export async function* readCsv(bytes: AsyncIterable<Buffer>, maxRecord = MAX_LINE_BYTES): AsyncGenerator<RawRow> {
  let header: string[] | undefined;
  for await (const record of splitRecords(bytes, maxRecord)) {
    const { line } = record;
    const fields = record.fault === undefined ? parseRecord(record.bytes, header === undefined) : record.fault;
    if (header === undefined) {
      if (Array.isArray(fields) && fields.length === 1 && fields[0] === "") continue;
      const fault = Array.isArray(fields) ? faultOfHeader(fields) : fields;
      if (fault !== undefined) {
        yield { line, fault };
        return;
      }
      header = (fields as string[]).map((name) => name.trim());
    } else if (!Array.isArray(fields)) yield { line, fault: fields };
    else if (fields.length === 1 && fields[0] === "") continue;
    else if (fields.length !== header.length) {
      yield { line, fault: `has ${fields.length} fields, and the header ${header.length}` };
    } else yield toRow(line, header, fields);
  }
}

function toRow(line: number, header: readonly string[], fields: readonly string[]): RawRow {
  const entries = header.map((name, i): [string, unknown] => [name, fields[i]]).filter(([, text]) => text !== "");
  return { line, value: Object.fromEntries(entries) };
}

function faultOfHeader(names: readonly string[]): string | undefined {
  const [only = ""] = names;
  if (names.length === 1 && /[;\t]/.test(only)) return "has one column: separate the columns by commas";
  if (names.length > MAX_COLUMNS) return `has ${names.length} columns; at most ${MAX_COLUMNS} are read`;
  const trimmed = names.map((name) => name.trim());
  const twice = trimmed.find((name, i) => trimmed.indexOf(name) !== i);
  if (twice !== undefined) return `the column ${JSON.stringify(twice.slice(0, 40))} stands twice in the header`;
  const empty = trimmed.indexOf("");
  return empty === -1 ? undefined : `column ${empty + 1} of the header has no name`;
}

/** The fields of one record, or a sentence. */
function parseRecord(bytes: Buffer, first: boolean): string[] | string {
  const text = decodeUtf8(first ? withoutMark(bytes) : bytes);
  if (text === undefined) return NOT_UTF8;
  const fields: string[] = [];
  for (let at = 0; ; ) {
    if (text[at] !== '"') {
      const comma = text.indexOf(",", at);
      const field = text.slice(at, comma === -1 ? undefined : comma);
      if (field.includes('"'))
        return `field ${fields.length + 1} has a quote in its middle: put the whole field in quotes and double the ones inside`;
      fields.push(field);
      if (comma === -1) return fields;
      at = comma + 1;
      continue;
    }
    const end = closingQuote(text, at + 1);
    if (end === -1) return UNCLOSED;
    fields.push(text.slice(at + 1, end).replaceAll('""', '"'));
    if (end + 1 === text.length) return fields;
    if (text[end + 1] !== ",")
      return `field ${fields.length} goes on behind its closing quote; quotes inside must be doubled`;
    at = end + 2;
  }
}

function closingQuote(text: string, from: number): number {
  for (let end = text.indexOf('"', from); end !== -1; end = text.indexOf('"', end + 2)) {
    if (text[end + 1] !== '"') return end;
  }
  return -1;
}

const UNCLOSED = "opens a quote that is never closed";

/** Cuts at line ends outside quotes; a quote opens at the beginning of a field only. */
async function* splitRecords(bytes: AsyncIterable<Buffer>, maxRecord: number): AsyncGenerator<CsvRecord> {
  let parts: Buffer[] = [];
  let size = 0;
  let begin = 1;
  let line = 1;
  let quoted = false;
  let fieldBegins = true;
  let justClosed = false;
  let marked = false;

  const add = (part: Buffer): void => {
    size += part.length;
    if (size <= maxRecord) parts.push(part);
    else parts = [];
  };
  const take = (): CsvRecord => {
    const whole = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    // CRLF: the return belongs to the line end.
    const record: CsvRecord = { line: begin, bytes: whole.at(-1) === 0x0d ? whole.subarray(0, -1) : whole };
    if (size > maxRecord) record.fault = `is longer than ${maxRecord} bytes${quoted ? `: it ${UNCLOSED}` : ""}`;
    else if (quoted) record.fault = UNCLOSED;
    parts = [];
    size = 0;
    return record;
  };

  for await (const arrived of bytes) {
    const chunk = marked ? arrived : withoutMark(arrived);
    marked = true;
    let from = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i];
      if (byte === QUOTE) {
        // A doubled quote closes and opens again at once, which comes to the same.
        const closes: boolean = quoted;
        quoted = !closes && (fieldBegins || justClosed);
        justClosed = closes;
        fieldBegins = false;
        continue;
      }
      justClosed = false;
      if (byte === NEWLINE) {
        line++;
        if (quoted) continue;
        add(chunk.subarray(from, i));
        yield take();
        from = i + 1;
        begin = line;
        fieldBegins = true;
      } else if (!quoted) fieldBegins = byte === COMMA;
    }
    if (from < chunk.length) add(chunk.subarray(from));
  }
  if (size > 0) yield take();
}
