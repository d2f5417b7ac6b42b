import { isDiskFull } from "../disk-full.ts";
import { fail } from "../errors.ts";

/** What a disk says that is full, as our error; it names no path. */
export async function storing<T>(
  work: Promise<T>,
  message = "the disk that holds the artefacts is full; nothing was kept. Free some space (or delete datasets) and send it again",
): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw isDiskFull(error) ? fail("insufficient_storage", message, { cause: error }) : error;
  }
}
