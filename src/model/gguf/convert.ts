import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { fail } from "../../errors.ts";
import { readArchitecture } from "./architecture.ts";
import { buildConfig } from "./config-json.ts";
import { type GgufFile, readGguf } from "./reader.ts";
import { readRopeScaling } from "./rope-scaling.ts";
import { planTensors } from "./tensor-plan.ts";
import { buildTokenizer } from "./tokenizer-json.ts";
import { plannedBytes, type WeightsProgress, writeWeights } from "./write-weights.ts";

/** Left free besides the weights: configuration, tokenizer, and room for the machine to breathe. */
const SPARE_BYTES = 64 * 1024 * 1024;

/**
 * Converts a GGUF file into a checkpoint directory at `target`. Everything is written to a directory beside it that is
 * renamed at the end, so `target` is complete or absent, whatever is killed. Two processes may convert at once; the first
 * rename wins and the other's work is dropped. Blocks: runs in a worker thread.
 */
export function convertGguf(
  path: string,
  target: string,
  onProgress: (progress: WeightsProgress) => void,
  label: string = basename(path),
): void {
  const file = readGguf(path, label);
  const architecture = readArchitecture(file);
  const plan = planTensors(file, architecture);
  const rope = readRopeScaling(file, path, architecture);
  const tokenizer = buildTokenizer(file, architecture);
  const config = buildConfig(file, architecture, rope, tokenizer);
  const generation = {
    bos_token_id: tokenizer.bos ?? null,
    eos_token_id: tokenizer.eos.length === 1 ? tokenizer.eos[0] : tokenizer.eos,
    pad_token_id: tokenizer.pad ?? null,
  };
  const parent = dirname(target);
  mkdirSync(parent, { recursive: true });
  dropAbandoned(parent);
  demandSpace(parent, plannedBytes(plan), file);
  const temporary = join(parent, `${TEMPORARY}${hostname()}-${process.pid}-${Date.now().toString(36)}`);
  try {
    mkdirSync(temporary);
    writeSynced(join(temporary, "config.json"), json(config));
    writeSynced(join(temporary, "generation_config.json"), json(generation));
    writeSynced(join(temporary, "tokenizer.json"), tokenizer.tokenizer);
    writeSynced(join(temporary, "tokenizer_config.json"), json(tokenizer.config));
    writeWeights(path, plan, join(temporary, "model.safetensors"), onProgress);
    publish(temporary, target);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw diskFull(file, error);
    throw error;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

const TEMPORARY = ".converting-";

function publish(temporary: string, target: string): void {
  try {
    renameSync(temporary, target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Another process was faster: the target exists and, being renamed into place, is complete.
    if (code !== "ENOTEMPTY" && code !== "EEXIST") throw error;
  }
}

/** Removes what conversions of processes left that are no more. Names of other machines are left alone. */
function dropAbandoned(parent: string): void {
  for (const entry of readdirSync(parent)) {
    if (!entry.startsWith(`${TEMPORARY}${hostname()}-`)) continue;
    const pid = Number(entry.slice(`${TEMPORARY}${hostname()}-`.length).split("-")[0]);
    if (Number.isInteger(pid) && !isAlive(pid)) rmSync(join(parent, entry), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function demandSpace(parent: string, bytes: number, file: GgufFile): void {
  const { bavail, bsize } = statfsSync(parent);
  if (bavail * bsize < bytes + SPARE_BYTES) throw diskFull(file, undefined, bytes);
}

function diskFull(file: GgufFile, cause?: unknown, bytes?: number): Error {
  const need = bytes === undefined ? "the disk filled up" : `${gigabytes(bytes)} are needed, more than is free,`;
  return fail(
    "engine_failed",
    `${file.label}: ${need} in the data directory; free some space or move the data directory`,
    {
      cause,
    },
  );
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function writeSynced(path: string, text: string): void {
  const fd = openSync(path, "wx");
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
