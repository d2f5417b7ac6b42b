import { randomUUID } from "node:crypto";
import { link, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { fail } from "../errors.ts";
import { isRunning, type ProcessIdentity, thisProcess } from "./process-identity.ts";

/** The holder shows life this often, for those who cannot see its process. */
const BEAT_MS = 2_000;
/**
 * A lock whose holder cannot be seen (another container, or one before a reboot) is taken over only after so many
 * missed beats (10 s): longer than anything that keeps the event loop from beating.
 */
const SILENT_BEATS = 5;
/** A lock file is written in one go right after it is made; one still unreadable after this was left by a crash in between. */
const WRITING_MS = 300;
/** After taking over: time in which another process that judged the same stale lock shows itself. */
const SETTLE_MS = 100;

interface Holder extends ProcessIdentity {
  token: string;
}

export interface Lock {
  /** Lets go; harmless when the lock has already been lost. */
  release(): Promise<void>;
}

/**
 * Takes the lock file at `path` for this process, or throws `data_dir_locked`. PGlite itself takes none, and two
 * processes on one directory silently lose each other's rows. A lock left by a process that is gone is taken over;
 * a living one is never robbed, whatever its age. `guards` is the directory's name for messages.
 */
export async function acquireLock(path: string, guards: string, beatMs = BEAT_MS): Promise<Lock> {
  const mine: Holder = { ...thisProcess(), token: randomUUID() };
  while (!(await create(path, mine))) {
    const holder = await read(path);
    if (holder === "absent") continue;
    if (holder !== "unreadable" && (await isAlive(path, holder, beatMs))) throw refused(holder, guards);
    await remove(path, holder === "unreadable" ? undefined : holder, guards);
    if (!(await create(path, mine))) continue;
    await delay(SETTLE_MS);
    const now = await read(path);
    if (typeof now === "string" || now.token !== mine.token)
      throw refused(typeof now === "string" ? undefined : now, guards);
    return hold(path, mine, beatMs);
  }
  return hold(path, mine, beatMs);
}

/** O_EXCL: exactly one of several processes succeeds. */
async function create(path: string, holder: Holder): Promise<boolean> {
  try {
    await writeFile(path, JSON.stringify(holder), { flag: "wx", mode: 0o644 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function read(path: string): Promise<Holder | "absent" | "unreadable"> {
  for (let attempt = 0; ; attempt++) {
    try {
      const holder = JSON.parse(await readFile(path, "utf8")) as Partial<Holder> | null;
      if (holder && Number.isInteger(holder.pid) && typeof holder.token === "string") {
        return { pid: 0, started: "", world: "", token: "", ...holder };
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return "absent";
      if (!(error instanceof SyntaxError)) throw error;
    }
    if (attempt === 1) return "unreadable";
    await delay(WRITING_MS);
  }
}

async function isAlive(path: string, holder: Holder, beatMs: number): Promise<boolean> {
  const running = isRunning(holder);
  if (running !== undefined) return running;
  // Compare the file's time with itself, never with our clock: the other machine's may differ.
  const before = await beat(path);
  for (let missed = 0; missed < SILENT_BEATS; missed++) {
    await delay(beatMs);
    if ((await beat(path)) !== before) return true;
  }
  return false;
}

async function beat(path: string): Promise<number | undefined> {
  return stat(path).then(
    (file) => file.mtimeMs,
    () => undefined,
  );
}

/**
 * Removes a stale lock. Renaming is atomic, so of several who judged the same lock stale one gets it; should it turn
 * out to be the new lock of a faster one, it is put back and we stand down.
 */
async function remove(path: string, stale: Holder | undefined, guards: string): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  const taken = await read(aside);
  const wrong = typeof taken !== "string" && taken.token !== stale?.token;
  if (wrong) await link(aside, path).catch(() => undefined);
  await rm(aside, { force: true });
  if (wrong) throw refused(taken, guards);
}

function hold(path: string, mine: Holder, beatMs: number): Lock {
  const timer = setInterval(() => {
    const now = new Date();
    // A data directory that cannot be written for a moment is the database's to report.
    utimes(path, now, now).catch(() => undefined);
  }, beatMs);
  timer.unref();
  return {
    async release() {
      clearInterval(timer);
      const now = await read(path);
      if (typeof now !== "string" && now.token === mine.token) await rm(path, { force: true });
    },
  };
}

function refused(holder: Holder | undefined, guards: string): Error {
  return fail(
    "data_dir_locked",
    `the embedded database in ${guards} is in use by ${describe(holder)}; stop that process, choose another PRECEPTOR_DATA_DIR, or set DATABASE_URL to share a PostgreSQL`,
  );
}

function describe(holder: Holder | undefined): string {
  if (!holder) return "another process";
  if (holder.pid === process.pid && holder.world === thisProcess().world) return `this process (pid ${holder.pid})`;
  const [host] = holder.world.split(" ");
  return `process ${holder.pid}${host ? ` on ${host}` : ""}`;
}
