import { mkdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fail } from "../../errors.ts";

/** The holder touches its lock this often … */
const TOUCH_MS = 5_000;
/** … and one that was not touched for this long belongs to a process that is gone (on another machine, perhaps). */
const STALE_MS = 30_000;
const POLL_MS = 200;

/**
 * Runs `action` while holding a lock file, so that processes that share a cache do not download a file at once. A lock
 * whose process died is taken over. Taking over has a gap in which two may hold it; contents are verified by hash, so
 * the worst outcome is a repeated download.
 */
export async function withLock<T>(path: string, signal: AbortSignal | undefined, action: () => Promise<T>): Promise<T> {
  await mkdir(dirname(path), { recursive: true });
  const mine = `${hostname()} ${process.pid}`;
  while (!(await writeFile(path, mine, { flag: "wx" }).then(() => true, takenOrThrow))) {
    if (signal?.aborted) throw fail("cancelled", "the download was cancelled");
    if (await isStale(path)) await rm(path, { force: true });
    else await wait(POLL_MS);
  }
  const touch = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined);
  }, TOUCH_MS);
  try {
    return await action();
  } finally {
    clearInterval(touch);
    await rm(path, { force: true });
  }
}

function takenOrThrow(error: NodeJS.ErrnoException): false {
  if (error.code === "EEXIST") return false;
  throw error;
}

async function isStale(path: string): Promise<boolean> {
  const [holder, found] = await Promise.all([
    readFile(path, "utf8").catch(() => ""),
    stat(path).catch(() => undefined),
  ]);
  if (!found) return false;
  if (Date.now() - found.mtimeMs > STALE_MS) return true;
  const [host, pid] = holder.split(" ");
  if (host !== hostname() || !Number.isInteger(Number(pid))) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}
