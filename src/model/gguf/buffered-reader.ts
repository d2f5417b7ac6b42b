import { readSync } from "node:fs";
import { fail } from "../../errors.ts";
import { MAX_HEADER_BYTES, MAX_STRING_BYTES } from "./format.ts";

/** Big enough that a header of 20 MB takes few system calls, small enough not to matter. */
const CHUNK_BYTES = 1024 * 1024;

/**
 * Reads little-endian values from the front of a file, blocking: a vocabulary is half a million tiny values, for which
 * promises cost more than the reading. Every length is checked before memory is taken for it.
 */
export interface BufferedReader {
  /** Bytes read so far: the offset of the next one. */
  position(): number;
  /** Fails with `invalid_checkpoint` unless `count` more bytes exist, in the file and within the header limit. */
  demand(count: number, what: string): void;
  u8(what: string): number;
  u32(what: string): number;
  /** An unsigned 64-bit number that must be a safe integer. */
  size(what: string): number;
  /** Length-prefixed UTF-8; invalid bytes become U+FFFD. */
  string(what: string): string;
  /** A view that is valid until the next call. */
  bytes(count: number, what: string): DataView;
}

export function createBufferedReader(fd: number, fileBytes: number, label: string): BufferedReader {
  let buffer = Buffer.alloc(0);
  let cursor = 0;
  let bufferEnd = 0; // file offset of the end of `buffer`
  const position = (): number => bufferEnd - buffer.length + cursor;

  function demand(count: number, what: string): void {
    const left = fileBytes - position();
    if (count > left) {
      throw fail(
        "invalid_checkpoint",
        `${label}: the file ends inside ${what} (${count} bytes are announced, ${left} are left); it is truncated or broken`,
      );
    }
    if (position() + count > MAX_HEADER_BYTES) {
      throw fail("invalid_checkpoint", `${label}: its header is over ${MAX_HEADER_BYTES} bytes, at ${what}`);
    }
  }

  function bytes(count: number, what: string): DataView {
    if (buffer.length - cursor < count) {
      demand(count, what);
      const kept = buffer.subarray(cursor);
      const wanted = Math.min(Math.max(count, CHUNK_BYTES) - kept.length, fileBytes - bufferEnd);
      const next = Buffer.allocUnsafe(kept.length + wanted);
      kept.copy(next);
      let filled = kept.length;
      while (filled < next.length) {
        const bytesRead = readSync(fd, next, filled, next.length - filled, bufferEnd);
        if (bytesRead === 0) throw fail("invalid_checkpoint", `${label}: the file shrank while it was read`);
        filled += bytesRead;
        bufferEnd += bytesRead;
      }
      buffer = next;
      cursor = 0;
    }
    const view = new DataView(buffer.buffer, buffer.byteOffset + cursor, count);
    cursor += count;
    return view;
  }

  function size(what: string): number {
    const value = bytes(8, what).getBigUint64(0, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw fail("invalid_checkpoint", `${label}: ${what} is ${value}, more than any file can hold`);
    }
    return Number(value);
  }

  function string(what: string): string {
    const length = size(`the length of ${what}`);
    if (length > MAX_STRING_BYTES) {
      throw fail("invalid_checkpoint", `${label}: ${what} claims to be a string of ${length} bytes`);
    }
    const view = bytes(length, what);
    return Buffer.from(view.buffer, view.byteOffset, length).toString("utf8");
  }

  return {
    position,
    demand,
    bytes,
    size,
    string,
    u8: (what) => bytes(1, what).getUint8(0),
    u32: (what) => bytes(4, what).getUint32(0, true),
  };
}
