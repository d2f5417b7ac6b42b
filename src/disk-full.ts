/** What a disk says that can take no more: no space, quota reached, file larger than the file system or the process may make it. */
const FULL = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

export function isDiskFull(error: unknown): boolean {
  return error instanceof Error && FULL.has((error as NodeJS.ErrnoException).code ?? "");
}
