/**
 * A process of its own that reads one Parquet file and writes its rows to standard output as JSON lines: an object for a row,
 * a text for one that cannot be read. So a file that was made to exhaust memory or time ends this process and no other.
 *
 *   node process.js <file>      exit 0: that was all · exit 2: what is wrong with the file stands on standard error
 */
import { once } from "node:events";
import { open } from "node:fs/promises";
import type { AsyncBuffer } from "hyparquet";
import { readRows } from "./rows.ts";

/** Rows are gathered: a write for each would cost more than the row. */
const PIECE_CHARACTERS = 256 * 1024;
export const EXIT_BAD_FILE = 2;

async function openFile(path: string): Promise<AsyncBuffer> {
  const handle = await open(path, "r");
  const { size } = await handle.stat();
  return {
    byteLength: size,
    async slice(start, end = size) {
      const bytes = new Uint8Array(Math.max(0, Math.min(end, size) - start));
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await handle.read(bytes, done, bytes.length - done, start + done);
        if (bytesRead === 0) throw new Error("the file has been cut");
        done += bytesRead;
      }
      return bytes.buffer;
    },
  };
}

async function main(path: string): Promise<void> {
  const file = await openFile(path);
  let piece = "";
  const flush = async (): Promise<void> => {
    if (!process.stdout.write(piece)) await once(process.stdout, "drain");
    piece = "";
  };
  for await (const row of readRows(file)) {
    piece += `${JSON.stringify(row)}\n`;
    if (piece.length >= PIECE_CHARACTERS) await flush();
  }
  if (piece !== "") await flush();
}

// Whoever read the rows is gone.
process.stdout.on("error", () => process.exit(1));
main(process.argv[2] ?? "").catch((error: Error) => {
  process.stderr.write(error.message, () => process.exit(EXIT_BAD_FILE));
});
