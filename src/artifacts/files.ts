/** Artefacts in a directory: `file:<directory>`. */
import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { fail } from "../errors.ts";
import { syncDirectory } from "../sync-directory.ts";
import { ArtifactMissing, type ArtifactStore, type ArtifactWriter, type StagedFolder } from "./store.ts";
import { storing } from "./storing.ts";

/** Beside the artefacts, so that a rename suffices. */
const STAGING = "tmp";
/** Small writes are gathered: one system call a line would cost more than the line. */
const BUFFER_BYTES = 1024 * 1024;
/** An upload writes all the time; what has not been written to for a day belongs to a process that was killed. */
const ABANDONED_AFTER_MS = 24 * 3_600_000;

export interface FileArtifactsOptions {
  directory: string;
  /** For tests of full disks. */
  openFile?: typeof open;
}

export function createFileArtifacts({ directory, openFile = open }: FileArtifactsOptions): ArtifactStore {
  const at = (key: string): string => path.join(directory, key);
  return {
    async stage() {
      const folder = at(path.join(STAGING, randomUUID()));
      await storing(mkdir(folder, { recursive: true }));
      return stagedFolder(folder, at, openFile);
    },

    async stat(key) {
      try {
        const { size, mtimeMs, ino, ctimeMs } = await stat(at(key));
        return { bytes: size, version: `${ino}:${size}:${mtimeMs}:${ctimeMs}` };
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    },

    read: (key, from, to) => readBytes(at(key), from, to),
    stream: (key, from, to) => streamBytes(at(key), from, to),
    remove: (folder) => rm(at(folder), { recursive: true, force: true }),
  };
}

/** The directory that `PRECEPTOR_ARTIFACTS` names. */
export function artifactsDirectory(setting: string): string {
  if (setting.startsWith("file:")) return setting.slice("file:".length);
  throw fail("invalid_value", "PRECEPTOR_ARTIFACTS: only file:<directory> is supported by this version, s3: is not", {
    param: "PRECEPTOR_ARTIFACTS",
  });
}

/** Removes what a killed process left half written. */
export async function sweepStaging(directory: string, now: number): Promise<void> {
  const staging = path.join(directory, STAGING);
  for (const name of await readdir(staging).catch(() => [])) {
    const folder = path.join(staging, name);
    const times = [await modified(folder)];
    for (const file of await readdir(folder).catch(() => [])) times.push(await modified(path.join(folder, file)));
    if (Math.max(...times) < now - ABANDONED_AFTER_MS) await rm(folder, { recursive: true, force: true });
  }
}

/** 0 where it is gone already. */
async function modified(file: string): Promise<number> {
  return (await stat(file).catch(() => undefined))?.mtimeMs ?? 0;
}

function stagedFolder(folder: string, at: (key: string) => string, openFile: typeof open): StagedFolder {
  const writers = new Set<{ abandon(): Promise<void> }>();
  return {
    async create(name) {
      const handle = await storing(openFile(path.join(folder, name), "wx"));
      const writer = bufferedWriter(handle, () => writers.delete(writer));
      writers.add(writer);
      return writer;
    },
    stream: (name) => streamBytes(path.join(folder, name)),
    read: (name, from, to) => readBytes(path.join(folder, name), from, to),
    path: (name) => path.join(folder, name),
    removeFile: (name) => rm(path.join(folder, name)),

    async place(target) {
      const destination = at(target);
      await storing(mkdir(path.dirname(destination), { recursive: true }));
      if (!(await sameFiles(folder, destination))) {
        await rm(destination, { recursive: true, force: true });
        await storing(syncDirectory(folder));
        await storing(rename(folder, destination));
        await storing(syncDirectory(path.dirname(destination)));
      }
    },

    async discard() {
      for (const writer of [...writers]) await writer.abandon();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** By name and size: contents that differ have another name for the folder. */
async function sameFiles(a: string, b: string): Promise<boolean> {
  for (const name of await readdir(a)) {
    const [mine, theirs] = await Promise.all([a, b].map((folder) => stat(path.join(folder, name)).catch(() => null)));
    if (mine?.size !== theirs?.size) return false;
  }
  return true;
}

function bufferedWriter(handle: FileHandle, onEnd: () => void): ArtifactWriter & { abandon(): Promise<void> } {
  let parts: Uint8Array[] = [];
  let waiting = 0;
  async function flush(): Promise<void> {
    const bytes = Buffer.concat(parts, waiting);
    parts = [];
    waiting = 0;
    for (let done = 0; done < bytes.length; ) {
      done += (await storing(handle.write(bytes, done, bytes.length - done))).bytesWritten;
    }
  }
  return {
    async write(bytes) {
      parts.push(bytes);
      waiting += bytes.length;
      if (waiting >= BUFFER_BYTES) await flush();
    },
    async close() {
      await flush();
      await storing(handle.sync());
      await storing(handle.close());
      onEnd();
    },
    async abandon() {
      onEnd();
      await handle.close().catch(() => undefined);
    },
  };
}

async function readBytes(file: string, from: number, to: number): Promise<Buffer> {
  const handle = await reading(open(file, "r"));
  try {
    const bytes = Buffer.alloc(Math.max(0, to - from));
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, from + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  } finally {
    await handle.close();
  }
}

async function* streamBytes(file: string, from = 0, to = Number.POSITIVE_INFINITY): AsyncGenerator<Buffer> {
  if (to <= from) return;
  const options = { start: from, ...(Number.isFinite(to) ? { end: to - 1 } : {}), highWaterMark: 256 * 1024 };
  try {
    yield* createReadStream(file, options) as AsyncIterable<Buffer>;
  } catch (error) {
    if (isMissing(error)) throw new ArtifactMissing(path.basename(file));
    throw error;
  }
}

async function reading<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (isMissing(error)) throw new ArtifactMissing("a file is missing");
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
}
