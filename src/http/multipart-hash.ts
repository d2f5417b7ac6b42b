import type { Hash } from "node:crypto";
import type { Part } from "./multipart.ts";

/**
 * The same parts; what passes through is added to `hash`. Of the whole body no hash could be compared: its boundary is another
 * one each time.
 */
export async function* hashedParts(parts: AsyncIterable<Part>, hash: Hash): AsyncGenerator<Part> {
  for await (const part of parts) {
    const { name, filename = null, contentType = null } = part;

    hash.update(`${JSON.stringify([name, filename, contentType])}\n`);
    yield { ...part, body: hashedBody(part.body, hash) };
  }
}

async function* hashedBody(body: AsyncIterable<Buffer>, hash: Hash): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.length;
    hash.update(piece);
    yield piece;
  }
  // So that the end of one part cannot be the beginning of the next.
  hash.update(`\n${bytes}\n`);
}
