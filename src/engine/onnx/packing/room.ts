import { statfs } from "node:fs/promises";
import { fail } from "../../../errors.ts";

/** A filled disk harms more than this server. */
const SPARE = 1.1;

/** Errors: `engine_failed` when the disk of this folder has not so many bytes free, and a tenth more. */
export async function requireRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const [needed, free] = [bytes * SPARE, bavail * bsize];
  if (needed <= free) return;
  const both = `${megabytes(needed)} in the cache directory, and its disk has ${megabytes(free)} free`;
  throw fail("engine_failed", `packing the weights takes ${both}; make room, or move the cache`);
}

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;
