/**
 * Folders of checkpoints that nobody will ever name: a kill came between a folder and its row in the database, or between the
 * two on their way out. A note lies beside a folder until its row is there, so that the sweep need not guess: what merely
 * has no row may be another database's.
 */
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import type { JobQueue } from "../jobs/queue.ts";

const NOTE = /^\.(ckpt_\w+)\.pending$/;
const TEMPORARY = /^\.?ckpt_.*\.tmp$/;
const FOLDER = /^ckpt_\w+$/;
const noteOf = (root: string, id: string): string => path.join(root, `.${id}.pending`);
/** A worker elsewhere writes the largest checkpoint within this, or is gone. */
const ABANDONED_AFTER_MS = 3_600_000;

/** Before the folder appears. */
export async function announceFolder(root: string, id: string): Promise<void> {
  await mkdir(root, { recursive: true });
  await writeFile(noteOf(root, id), "");
}

/** Its row is there. */
export async function settleFolder(root: string, id: string): Promise<void> {
  await rm(noteOf(root, id), { force: true });
}

export interface FolderSweep {
  findCheckpoint: JobQueue["findCheckpoint"];
  /** Nobody else uses the folder, so whatever is unfinished was left behind. */
  exclusive: boolean;
  /** Milliseconds of the day. */
  now: number;
}

/** Removes what killed processes left behind; returns the names of what went. */
export async function sweepFolders(root: string, { findCheckpoint, exclusive, now }: FolderSweep): Promise<string[]> {
  const names = await readdir(root).catch((): string[] => []);
  const gone: string[] = [];
  const remove = async (name: string): Promise<void> => {
    await rm(path.join(root, name), { recursive: true, force: true });
    gone.push(name);
  };
  const isAbandoned = async (name: string): Promise<boolean> => {
    if (exclusive) return true;
    const modified = (await stat(path.join(root, name)).catch(() => undefined))?.mtimeMs;
    return modified !== undefined && modified < now - ABANDONED_AFTER_MS;
  };
  for (const name of names) {
    const [, pending] = NOTE.exec(name) ?? [];
    if (TEMPORARY.test(name) && (await isAbandoned(name))) await remove(name);
    else if (FOLDER.test(name) && (await findCheckpoint(name))?.deletedAt) await remove(name);
    else if (pending !== undefined && (await isAbandoned(name))) {
      if (names.includes(pending) && !(await findCheckpoint(pending))) await remove(pending);
      await settleFolder(root, pending);
    }
  }
  return gone;
}
