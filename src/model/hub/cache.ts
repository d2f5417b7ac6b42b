/**
 * The layout of the Hugging Face cache, so that what other tools downloaded is found and the other way round:
 *
 *     <cacheDir>/models--org--name/refs/<revision>              the commit a branch or tag stood for
 *                                    blobs/<etag>                 contents
 *                                    snapshots/<commit>/<file>    relative links into blobs/
 */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fail } from "../../errors.ts";
import type { RepoKind } from "./types.ts";

export interface RepoCache {
  /** `models--org--name`, `datasets--org--name` */
  directory: string;
  blob(etag: string): string;
  snapshot(commit: string): string;
  /** The commit a revision stood for when it was last resolved; undefined when never. */
  readRef(revision: string): Promise<string | undefined>;
  writeRef(revision: string, commit: string): Promise<void>;
  /** Makes a file of a snapshot point to a blob. */
  link(commit: string, file: string, etag: string): Promise<void>;
}

export function openRepoCache(cacheDir: string, repo: string, kind: RepoKind = "models"): RepoCache {
  const directory = join(cacheDir, `${kind}--${repo.replaceAll("/", "--")}`);
  const blob = (etag: string): string => join(directory, "blobs", safeSegment(etag, "the file's etag"));
  const snapshot = (commit: string): string => join(directory, "snapshots", safeSegment(commit, "the commit"));
  const ref = (revision: string): string => join(directory, "refs", revision);
  return {
    directory,
    blob,
    snapshot,
    readRef: (revision) =>
      readFile(ref(revision), "utf8").then(
        (text) => text.trim() || undefined,
        () => undefined,
      ),
    async writeRef(revision, commit) {
      await mkdir(dirname(ref(revision)), { recursive: true });
      // Two downloads of this process may end at the same moment: that of a model and that of its tokenizer.
      const temporary = `${ref(revision)}.${randomUUID()}.tmp`;
      await writeFile(temporary, commit);
      await rename(temporary, ref(revision));
    },
    async link(commit, file, etag) {
      const pointer = join(snapshot(commit), file);
      await mkdir(dirname(pointer), { recursive: true });
      const target = relative(dirname(pointer), blob(etag));
      const present = await readlink(pointer).catch(() => undefined);
      if (present === target) return;
      if (present !== undefined) await rm(pointer, { force: true });
      try {
        await symlink(target, pointer);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        // Another process was faster, or the file system knows no links (then other tools copy as well).
        if (code === "EEXIST") return;
        if (code !== "EPERM" && code !== "ENOTSUP") throw error;
        await copyFile(blob(etag), pointer);
      }
    },
  };
}

/** Names from a server become file names: one path segment, nothing hidden, nothing upwards. */
function safeSegment(name: string, what: string): string {
  if (/^[A-Za-z0-9][\w.-]{0,199}$/.test(name)) return name;
  throw fail("hub_error", `the hub answered with ${what} ${JSON.stringify(name.slice(0, 60))}, which is no valid name`);
}

export async function fileSize(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ? found.size : undefined;
}
