import { readFileSync } from "node:fs";

/**
 * VmRSS is all memory in use, VmHWM the most it ever was; RssAnon is what the process made itself (heaps, caches), RssFile
 * the pages of mapped files, which the system may drop and which processes share.
 */
export type MemoryLine = "VmRSS" | "VmHWM" | "RssAnon" | "RssFile";

/** Bytes by /proc/<pid>/status; undefined on systems without it and for a process that is gone. */
export function processBytes(pid: number, line: MemoryLine): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const kilobytes = new RegExp(`^${line}:\\s+(\\d+) kB`, "m").exec(status)?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  } catch {
    return undefined;
  }
}

export const mebibytes = (bytes: number | undefined): string =>
  bytes === undefined || Number.isNaN(bytes) ? "unknown" : `${(bytes / 2 ** 20).toFixed(0)} MiB`;
