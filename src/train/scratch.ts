/** Folders that live as long as their process: what a process that is gone left behind is removed by the next. */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { isRunning, type ProcessIdentity, thisProcess } from "../db/process-identity.ts";

const OWNER = "owner.json";

export interface Scratch {
  /** Below which this process may make what it likes. */
  directory: string;
  remove(): Promise<void>;
}

/**
 * A folder of this process below `root`. `exclusive`: no other process uses this root, so whatever lies there is left over;
 * otherwise only what belongs to a process that is seen to be gone.
 */
export async function openScratch(root: string, { exclusive }: { exclusive: boolean }): Promise<Scratch> {
  await mkdir(root, { recursive: true });
  for (const name of await readdir(root)) {
    const left = path.join(root, name);
    if (exclusive || (await isAbandoned(left))) await rm(left, { recursive: true, force: true });
  }
  const directory = path.join(root, randomUUID());
  await mkdir(directory);
  await writeFile(path.join(directory, OWNER), JSON.stringify(thisProcess()));
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}

async function isAbandoned(directory: string): Promise<boolean> {
  try {
    const owner = JSON.parse(await readFile(path.join(directory, OWNER), "utf8")) as ProcessIdentity;
    return isRunning(owner) === false;
  } catch {
    // Perhaps it is being made at this moment.
    return false;
  }
}
