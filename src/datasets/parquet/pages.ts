/** One column of one row group, page by page: no more than a page is in memory, however large the row group is. */
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import type { AsyncBuffer, ColumnMetaData, Compressors, DecodedArray, SchemaTree } from "hyparquet";
import { parquetHeader, readPage } from "hyparquet/src/column.js";
import { convert } from "hyparquet/src/convert.js";
import { getMaxRepetitionLevel } from "hyparquet/src/schema.js";
import { decompressZstd, compressors as others } from "hyparquet-compressors";
import { MAX_HEADER_BYTES, MAX_PAGE_BYTES, MAX_PAGE_VALUES } from "./limits.ts";
import { PARSERS } from "./values.ts";

type PageHeader = ReturnType<typeof parquetHeader>;

/** Bounded by what the page's header says, and native where Node has it. */
const compressors: Compressors = {
  ...others,
  GZIP: (input, length) => gunzipSync(input, { maxOutputLength: Math.max(1, length) }),
  BROTLI: (input, length) => brotliDecompressSync(input, { maxOutputLength: Math.max(1, length) }),
  ZSTD: (input, length) => decompressZstd(input, new Uint8Array(length)),
};

/** Read at once: most pages with their headers. */
const READ_BYTES = 1024 * 1024;

/** Yields the values of whole rows, nested as lists of lists; `schemaPath` goes from the root to the column. */
export async function* readPages(
  file: AsyncBuffer,
  column: ColumnMetaData,
  schemaPath: SchemaTree[],
): AsyncGenerator<DecodedArray> {
  const decoder = {
    ...column,
    pathInSchema: column.path_in_schema,
    element: schemaPath.at(-1)!.element,
    schemaPath,
    compressors,
    parsers: PARSERS,
    // Texts without a mark are bytes; whether they are texts is seen value by value.
    utf8: false,
  };
  const source = createWindow(file, column);
  const repeated = getMaxRepetitionLevel(schemaPath) > 0;
  let dictionary: DecodedArray | undefined;
  /** The last row of a page may go on in the next one. */
  let open: DecodedArray = [];
  while (!source.ended()) {
    const header = await source.header();
    const reader = { view: viewOf(await source.body(header.compressed_page_size)), offset: 0 };
    assertPage(header, column);
    const { data } = readPage(reader, header, decoder, dictionary, repeated ? open : undefined, 0);
    if (header.type === "DICTIONARY_PAGE") {
      dictionary = data && convert(data, decoder);
      continue;
    }
    if (data === undefined || data.length === 0) continue;
    if (!repeated) yield data;
    else {
      open = data.slice(-1);
      if (data.length > 1) yield data.slice(0, -1);
    }
  }
  if (open.length > 0) yield open;
}

function assertPage(header: PageHeader, column: ColumnMetaData): void {
  const name = column.path_in_schema.join(".");
  const { uncompressed_page_size: bytes } = header;
  if (!(bytes >= 0 && bytes <= MAX_PAGE_BYTES)) {
    throw new Error(`a page of ${name} unpacks to ${bytes} bytes; at most ${MAX_PAGE_BYTES} are read`);
  }
  const { num_values: values } = header.data_page_header ??
    header.data_page_header_v2 ??
    header.dictionary_page_header ?? { num_values: 0 };
  if (!(values >= 0 && values <= MAX_PAGE_VALUES)) {
    throw new Error(`a page of ${name} says that it has ${values} values; at most ${MAX_PAGE_VALUES} are read`);
  }
}

/** What of the column's bytes is in memory. */
function createWindow(file: AsyncBuffer, column: ColumnMetaData) {
  const name = column.path_in_schema.join(".");
  let at = Number(column.dictionary_page_offset || column.data_page_offset);
  const end = at + Number(column.total_compressed_size);
  if (!(at >= 4 && end >= at && end <= file.byteLength)) {
    throw new Error(`the column ${name} lies at bytes ${at} to ${end} of a file of ${file.byteLength}`);
  }
  let held = new Uint8Array(0);

  /** At least `bytes` from here, or what is left. */
  async function hold(bytes: number): Promise<void> {
    const wanted = Math.min(bytes, end - at);
    if (held.length >= wanted) return;
    held = new Uint8Array(await file.slice(at, Math.min(end, at + Math.max(wanted, READ_BYTES))));
    if (held.length < wanted) throw new Error("the file has been cut");
  }
  function pass(bytes: number): void {
    at += bytes;
    held = held.subarray(bytes);
  }

  return {
    // As other readers do, a stray byte behind the last page is not looked at.
    ended: () => at >= end - 1,

    async header(): Promise<PageHeader> {
      for (let bytes = 1_024; ; bytes *= 4) {
        await hold(bytes);
        const reader = { view: viewOf(held), offset: 0 };
        try {
          const header = parquetHeader(reader);
          pass(reader.offset);
          return header;
        } catch (error) {
          if (held.length >= end - at || bytes >= MAX_HEADER_BYTES) throw error;
        }
      }
    },

    /** A buffer of its own: decoded values may be views of it. */
    async body(bytes: number): Promise<Uint8Array> {
      if (!(bytes >= 0 && bytes <= MAX_PAGE_BYTES && bytes <= end - at)) {
        throw new Error(`a page of ${name} says that it has ${bytes} bytes, and ${end - at} are left`);
      }
      await hold(bytes);
      const body = held.slice(0, bytes);
      pass(bytes);
      return body;
    },
  };
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
