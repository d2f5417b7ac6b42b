import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createRequire } from "node:module";
import type { Readable } from "node:stream";
import { fileURLToPath, pathToFileURL } from "node:url";

/**
 * Starts a process of its own from a module beside its caller, as `spawnWorker` starts a thread. It inherits no environment:
 * what it works on was sent by others, and secrets are none of its business.
 */
export function spawnProcess(
  module: URL,
  args: readonly string[],
  nodeOptions: readonly string[],
): ChildProcessByStdio<null, Readable, Readable> {
  const options = { stdio: ["ignore", "pipe", "pipe"] as ["ignore", "pipe", "pipe"], env: {} };
  const built = import.meta.url.endsWith(".js");
  const file = fileURLToPath(built ? new URL(module.href.replace(/\.ts$/, ".js")) : module);
  const loader = built ? [] : ["--import", pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href];
  return spawn(process.execPath, [...nodeOptions, ...loader, file, ...args], options);
}
