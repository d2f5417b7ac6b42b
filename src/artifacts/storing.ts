import { fail } from "../errors.ts";

/** No space, quota reached, file larger than the file system or the process may make it. */
const FULL = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

/** What a disk says that is full, as our error; it names no path. */
export async function storing<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!FULL.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
    throw fail(
      "insufficient_storage",
      "the disk that holds the artefacts is full; nothing was kept. Free some space (or delete datasets) and send it again",
      { cause: error },
    );
  }
}
