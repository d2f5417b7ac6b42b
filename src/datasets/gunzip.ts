/** Unpacks gzip as it is read, and stops where somebody meant to fill the disk. */
import { Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { fail } from "../errors.ts";

/** Texts shrink to a tenth, tables of one repeated line to a fiftieth; what shrinks further was made to. */
export const MAX_INFLATION = 100;
/** So little does no harm, however small it was packed. */
const UNCHECKED_BYTES = 2 ** 20;

/** Throws `invalid_dataset` for broken or bomb-like files, `payload_too_large` beyond `maxBytes`. */
export async function* gunzip(packed: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Buffer> {
  let read = 0;
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const piece of packed) {
      read += piece.length;
      yield piece;
    }
  }
  const source = Readable.from(counted());
  const unpacked = source.pipe(createGunzip());
  source.once("error", (error) => unpacked.destroy(error));
  let written = 0;
  try {
    for await (const piece of unpacked as AsyncIterable<Buffer>) {
      written += piece.length;
      if (written > maxBytes) {
        throw fail(
          "payload_too_large",
          `The file unpacks to more than ${maxBytes} bytes. Split it, or have the server's PRECEPTOR_MAX_DATASET_MB raised.`,
          { param: "file" },
        );
      }
      if (written > UNCHECKED_BYTES && written > MAX_INFLATION * read) {
        const why = `the gzip file inflates beyond ${MAX_INFLATION} times its size; send it unpacked if that is right`;
        throw fail("invalid_dataset", why, { param: "file" });
      }
      yield piece;
    }
  } catch (error) {
    if (!isZlibError(error)) throw error;
    throw fail("invalid_dataset", `the gzip file is broken (${error.message}); pack it again`, { param: "file" });
  } finally {
    source.destroy();
    unpacked.destroy();
  }
}

function isZlibError(error: unknown): error is Error {
  return error instanceof Error && String((error as NodeJS.ErrnoException).code).startsWith("Z_");
}
