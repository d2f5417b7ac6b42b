/** A file system of a few megabytes that really fills up. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

export const MIB = 2 ** 20;

export interface SmallDisk {
  directory: string;
  resize(bytes: number): void;
  /** Takes what is left. */
  fill(): Promise<void>;
  empty(): Promise<void>;
  remove(): void;
}

/** undefined: it takes root, or may not be mounted here. */
export function mountSmallDisk(): SmallDisk | undefined {
  const directory = mkdtempSync(path.join(tmpdir(), "preceptor-small-disk-"));
  const run = (command: string, ...args: string[]) => void execFileSync(command, args, { stdio: "pipe" });
  try {
    run("mount", "-t", "tmpfs", "-o", `size=${MIB}`, "tmpfs", directory);
  } catch {
    rmSync(directory, { recursive: true });
    return undefined;
  }
  const fillers = path.join(directory, "filler-");
  return {
    directory,
    resize: (bytes) => run("mount", "-o", `remount,size=${bytes}`, directory),
    async fill() {
      let made = 0;
      for (let bytes = MIB; bytes >= 1; ) {
        const fits = await writeFile(`${fillers}${made++}`, Buffer.alloc(bytes)).then(
          () => true,
          () => false,
        );
        if (!fits) bytes = Math.floor(bytes / 2);
      }
    },
    async empty() {
      for (const name of await readdir(directory)) {
        if (name.startsWith("filler-")) await rm(path.join(directory, name));
      }
    },
    remove() {
      run("umount", directory);
      rmSync(directory, { recursive: true });
    },
  };
}
