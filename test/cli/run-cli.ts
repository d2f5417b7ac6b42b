import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { vi } from "vitest";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A command starts in about a second; on a machine busy with other tests that becomes several, and a test runs a few. */
vi.setConfig({ testTimeout: 120_000 });

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  env?: Record<string, string>;
  input?: string;
}

/** Starts the real command line in a child process, with nothing of this process's PRECEPTOR_ settings. */
export function startCli(
  args: readonly string[],
  { env = {} }: CliOptions = {},
): ChildProcessByStdio<Writable, Readable, Readable> {
  const inherited = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(PRECEPTOR_|DATABASE_URL|HF_|NO_COLOR|FORCE_COLOR)/.test(name)),
  );
  return spawn(process.execPath, ["--import", "tsx", "src/main.ts", ...args], {
    cwd: ROOT,
    env: { ...inherited, ...env },
    stdio: ["pipe", "pipe", "pipe"],
  });
}

/** Runs it to its end. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const child = startCli(args, options);
  child.stdin.on("error", () => {}); // it may end without reading
  child.stdin.end(options.input ?? "");
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  return { code: child.exitCode, stdout, stderr };
}

async function text(stream: Readable): Promise<string> {
  let all = "";
  for await (const chunk of stream.setEncoding("utf8")) all += chunk;
  return all;
}
