/** What a command leaves beside its output until it is done, so that it goes on where it was ended. */
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { acquireLock } from "../../db/lock.ts";
import { PreceptorError } from "../../errors.ts";
import { syncDirectory } from "../../sync-directory.ts";
import { CliError } from "../errors.ts";

export interface PartialWork {
  folder: string;
  /** Writes a file that stands under its name only once it is whole. */
  write(target: string, lines: AsyncIterable<string> | Iterable<string>): Promise<void>;
  /** The work is done: the folder goes. */
  remove(): Promise<void>;
  /** Lets others go on with it; nothing stays where nothing was begun. */
  release(): Promise<void>;
}

/** Throws where somebody else works in it, or where `out` is there and nothing says that it is ours to write. */
export async function openPartial(out: string): Promise<PartialWork> {
  const folder = `${out}.partial`;
  const begun = await exists(path.join(folder, ARGUMENTS));
  if (!begun && (await exists(out))) {
    throw new CliError(`${out} exists already; name another --out, or remove it.`);
  }
  await mkdir(folder, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    throw new CliError(`${folder} cannot be made (${error.code}); name another --out.`);
  });
  const lock = await acquireLock(path.join(folder, "lock"), folder).catch((error: unknown) => {
    if (!(error instanceof PreceptorError) || error.code !== "data_dir_locked") throw error;
    throw new CliError(`Another command is at work on ${out}; wait for its end, or name another --out.`);
  });
  return {
    folder,
    async write(target, lines) {
      const passing = path.join(folder, "writing.jsonl");
      const file = await open(passing, "w");
      try {
        let waiting = "";
        for await (const line of lines) {
          waiting += `${line}\n`;
          if (waiting.length < WRITE_CHARACTERS) continue;
          await file.appendFile(waiting);
          waiting = "";
        }
        await file.appendFile(waiting);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(passing, target);
      await syncDirectory(path.dirname(target));
    },
    remove: () => rm(folder, { recursive: true, force: true }),
    async release() {
      await lock.release();
      // What ended before anything was begun leaves nothing behind.
      if (!(await exists(path.join(folder, ARGUMENTS)))) await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A system call a line would cost more than the line. */
const WRITE_CHARACTERS = 1_000_000;
const ARGUMENTS = "arguments.json";

/** Keeps what was asked for, or compares it with what was asked for when the work was begun. */
export async function requireSameArguments({ folder, write }: PartialWork, asked: object): Promise<void> {
  const file = path.join(folder, ARGUMENTS);
  const text = await readFile(file, "utf8").catch(() => null);
  if (text === null) return write(file, [JSON.stringify(asked)]);
  const before = JSON.parse(text) as Record<string, unknown>;
  const now = JSON.parse(JSON.stringify(asked)) as Record<string, unknown>;
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  const changed = names.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(now[name]));
  if (changed.length === 0) return;
  throw new CliError(
    `${folder} holds what was begun with another ${changed.join(", ")}; run the command as before to go on with it, remove the folder to begin anew, or name another --out.`,
  );
}

/** Larger than that of every earlier run: journals are written under it. */
export async function nextToken(journal: string): Promise<number> {
  const names = await readdir(journal).catch(() => []);
  return 1 + Math.max(0, ...names.map((name) => Number.parseInt(name, 10) || 0));
}

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );
