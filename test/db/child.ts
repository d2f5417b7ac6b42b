import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export interface Child {
  process: ChildProcessWithoutNullStreams;
  /** Whole lines printed so far. */
  lines: string[];
  /** Resolves with the first line that `wanted` accepts; rejects if the process ends without one. */
  line(wanted: (line: string) => boolean): Promise<string>;
  exited: Promise<void>;
}

/** Starts a script from test/db/children in a process of its own. */
export function startChild(script: string, args: readonly string[]): Child {
  const path = fileURLToPath(new URL(`./children/${script}`, import.meta.url));
  const child = spawn(process.execPath, ["--import", "tsx", path, ...args]);
  const lines: string[] = [];
  let rest = "";
  let noise = "";
  let changed: (() => void)[] = [];
  let over = false;
  const notify = (): void => {
    const waiting = changed;
    changed = [];
    for (const wake of waiting) wake();
  };
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
    notify();
  });
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    noise += chunk;
  });
  // A killed child's pipe breaks; that is no error of the test.
  child.stdin.on("error", () => undefined);
  const exited = new Promise<void>((resolve) => {
    child.on("close", () => {
      over = true;
      notify();
      resolve();
    });
  });
  return {
    process: child,
    lines,
    exited,
    async line(wanted) {
      for (;;) {
        const found = lines.find(wanted);
        if (found !== undefined) return found;
        if (over) throw new Error(`${script} ended first: ${lines.join(" | ")} ${noise}`);
        await new Promise<void>((resolve) => changed.push(resolve));
      }
    },
  };
}
