import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
/** Half an hour: a model of some billions of weights on few cores. Only a child that hangs takes longer. */
const TIMEOUT_MS = 30 * 60 * 1000;

/**
 * Runs a peer in a process of its own, so that its threads and memory are gone afterwards, and parses the last line it
 * prints as JSON. Throws with the line of its standard error that names the error.
 */
export async function runPeer(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<unknown> {
  try {
    const options = { cwd: ROOT, timeout: TIMEOUT_MS, env: { ...process.env, ...env } };
    const { stdout } = await promisify(execFile)(command, args, options);
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    const lines = (stderr || message).trim().split("\n");
    throw new Error(lines.findLast((line) => /^\w*Error\b.*:/.test(line)) ?? lines.at(-1), { cause: error });
  }
}

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
