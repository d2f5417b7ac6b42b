/** Defaults that depend on the machine or on other settings. */
import { existsSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Env } from "./variables.ts";

/** What the defaults are derived from; an argument so that tests do not depend on the machine. */
export interface Machine {
  cores: number;
  memoryBytes: number;
  terminal: boolean;
  home: string;
  cwd: string;
}

/** Models may fill this much of memory; the rest is for the database, the text worker, caches and the system. */
const MODEL_MEMORY_SHARE = 0.7;

export function artifacts(given: string | undefined, dataDir: string, cwd: string): string {
  if (given === undefined) return `file:${path.join(dataDir, "artifacts")}`;
  return given.startsWith("file:") ? `file:${path.resolve(cwd, given.slice("file:".length))}` : given;
}

const UNITS: Readonly<Record<string, number>> = { k: 1, m: 2, g: 3, t: 4 };

/** Bytes that loaded models may take. */
export function memory(given: string | undefined, total: number): number {
  if (given === undefined) return Math.floor(total * MODEL_MEMORY_SHARE);
  const [, amount = "0", unit = ""] = /^([\d.]+)\s*(.*)$/.exec(given.toLowerCase()) ?? [];
  if (unit === "%") return Math.floor((total * Number(amount)) / 100);
  const letter = unit.replace(/i?b$/, "");
  const power = UNITS[letter] ?? 0;
  return Math.floor(Number(amount) * (unit.includes("i") ? 1024 : 1000) ** power);
}

/** The folder the hub's own tools use: HF_HOME, else huggingface below the cache directory of the user. */
export function hubHome(env: Env, machine: Machine): string {
  return env.HF_HOME ?? path.join(env.XDG_CACHE_HOME ?? path.join(machine.home, ".cache"), "huggingface");
}

/** `hf auth login` leaves the token here. */
export function storedHubToken(env: Env, machine: Machine): string | undefined {
  const file = env.HF_TOKEN_PATH ?? path.join(hubHome(env, machine), "token");
  if (!existsSync(file)) return undefined;
  try {
    return readFileSync(file, "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}

export function thisMachine(): Machine {
  // In a container the limit counts, not the host's memory; 0 or a huge number means there is none.
  const limit = process.constrainedMemory?.() ?? 0;
  const total = os.totalmem();
  return {
    cores: os.availableParallelism(),
    memoryBytes: limit > 0 && limit < total ? limit : total,
    terminal: process.stdout.isTTY === true,
    home: os.homedir(),
    cwd: process.cwd(),
  };
}
