import { execFileSync } from "node:child_process";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";

/** Enough to tell later whether the same process still lives: ids are reused, a pair of id and start time is not. */
export interface ProcessIdentity {
  pid: number;
  /** When it began, in whatever unit the system gives; compared for equality only. Empty where unknown. */
  started: string;
  /**
   * In which world the id means this process: host, boot and pid namespace. Two containers on one volume may both be
   * pid 1, and neither sees the other.
   */
  world: string;
}

export function thisProcess(): ProcessIdentity {
  return { pid: process.pid, started: startTime(process.pid) ?? "", world: world() };
}

/** Whether `identity` runs now; undefined if that cannot be seen from here (another container or machine). */
export function isRunning(identity: ProcessIdentity): boolean | undefined {
  if (identity.world !== world()) return undefined;
  try {
    process.kill(identity.pid, 0);
  } catch (error) {
    // EPERM: it exists and belongs to someone else.
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  const started = startTime(identity.pid);
  if (started === undefined) return false;
  return started === "" || identity.started === "" || started === identity.started;
}

/** undefined: no such process (or a zombie, which holds nothing); "": it cannot be found out. */
function startTime(pid: number): string | undefined {
  if (process.platform === "linux") {
    try {
      // proc(5): the name in parentheses may hold anything, so count from its end: state, ppid, …, starttime (22nd).
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return fields[0] === "Z" || fields[0] === "X" ? undefined : (fields[19] ?? "");
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === "ENOENT" ? undefined : "";
    }
  }
  try {
    // macOS and the BSDs have no /proc, but a ps that prints the same.
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8", timeout: 2_000 }).trim();
  } catch {
    return "";
  }
}

function world(): string {
  return [hostname(), readOr(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8")), namespace()].join(" ");
}

function namespace(): string {
  return readOr(() => readlinkSync("/proc/self/ns/pid"));
}

function readOr(read: () => string): string {
  try {
    return read().trim();
  } catch {
    return "";
  }
}
