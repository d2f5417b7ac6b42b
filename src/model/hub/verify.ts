import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";

/**
 * Whether a file's contents are what its etag says. The hub's etags are hashes: SHA-256 (64 hex digits) of large files,
 * Git's blob SHA-1 (40) of small ones. Another server's etag proves nothing; then only the size was checked.
 */
export async function matchesEtag(path: string, etag: string, size: number): Promise<boolean> {
  if (/^[0-9a-f]{64}$/.test(etag)) return (await digest(path, createHash("sha256"))) === etag;
  if (/^[0-9a-f]{40}$/.test(etag)) return (await digest(path, createHash("sha1").update(`blob ${size}\0`))) === etag;
  return true;
}

async function digest(path: string, hash: ReturnType<typeof createHash>): Promise<string> {
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
