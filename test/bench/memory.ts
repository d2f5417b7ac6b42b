import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { Precision } from "../../src/engine/engine.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { SMOLLM2_135M, writeRandomCheckpoint } from "../engine/random-checkpoint.ts";
import { runPeer } from "./peers/child.ts";
import { writeRandomAdapter } from "./random-adapter.ts";
import type { ServerOptions } from "./server.ts";

/** What the child is told. */
export interface MemorySettings {
  directory: string;
  adapter: string;
  cacheDir: string;
  precision: Precision;
  threads: number;
}

/** Bytes: anonymous memory is the process's own; file pages are mapped weights, which workers and processes share. */
const reading = z.object({ anon: z.number(), file: z.number() });
export type Reading = z.infer<typeof reading>;

const figures = z.object({
  readings: z.object({
    empty: reading,
    firstOpened: reading,
    firstUsed: reading,
    secondOpened: reading,
    secondUsed: reading,
    adapterUsed: reading,
  }),
  /** Of the first model: its weights as packed, and with them its caches after use, by the engine's own account. */
  weightBytes: z.number(),
  modelBytes: z.number(),
  /** CPU seconds per second while nothing is asked. */
  idleCpu: z.number(),
});
export type MemoryFigures = z.infer<typeof figures>;

const RANK = 16;
const SHARE_TARGET = 0.1;
/** A timer here and there; a thread that polls shows as far more. */
const IDLE_TARGET = 0.01;
/**
 * glibc keeps what is freed for later, and the next step would take it from there and seem to cost nothing: here whatever
 * is larger than this goes back to the system at once, and the readings count what is in use.
 */
const GIVE_BACK = { MALLOC_MMAP_THRESHOLD_: "65536", MALLOC_TRIM_THRESHOLD_: "65536" };
const CHILD = fileURLToPath(new URL("./memory-child.ts", import.meta.url));

/** What a second worker of loaded weights costs, and an adapter on the first; Linux only. */
export async function benchMemory(options: ServerOptions, print: (line: string) => void): Promise<void> {
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-memory-"));
  try {
    const directory = options.directory ?? path.join(scratch, "random");
    if (!options.directory) await writeRandomCheckpoint(directory, SMOLLM2_135M);
    const [adapter, cacheDir] = [path.join(scratch, "adapter"), path.join(scratch, "cache")];
    await mkdir(cacheDir);
    await writeRandomAdapter(adapter, (await openCheckpoint(directory)).config, RANK);
    const adapterBytes = (await stat(path.join(adapter, "adapter_model.safetensors"))).size;
    const threads = options.threads ?? availableParallelism();
    const settings: MemorySettings = { directory, adapter, cacheDir, precision: options.precision, threads };
    const args = ["--import", "tsx", CHILD, JSON.stringify(settings)];
    const run = async (): Promise<MemoryFigures> => figures.parse(await runPeer(process.execPath, args, GIVE_BACK));
    // The first start packs the weights, and what that leaves in the heap is not what a server lives with.
    const packing = await run();
    print(
      `model: ${options.directory ?? "random weights of SmolLM2-135M's shape"}, ${options.precision}, ${threads} threads`,
    );
    print(
      `first start, which packs: ${mib(grown(packing, "empty", "firstUsed").anon)} anonymous; from now on a later start`,
    );
    report(await run(), adapterBytes, print);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

type Step = keyof MemoryFigures["readings"];

function grown({ readings }: MemoryFigures, from: Step, to: Step): Reading {
  return {
    anon: readings[to].anon - readings[from].anon,
    file: readings[to].file - readings[from].file,
  };
}

function report(found: MemoryFigures, adapterBytes: number, print: (line: string) => void): void {
  const { weightBytes, modelBytes, idleCpu } = found;
  const row = (what: string, from: Step, to: Step, target?: number): void => {
    const { anon, file } = grown(found, from, to);
    const share = anon / modelBytes;
    const verdict = target ? ` (target below ${percent(target)}: ${share < target ? "met" : "MISSED"})` : "";
    print(
      `${what.padEnd(28)} anonymous ${mib(anon)}, file ${mib(file)}: ${percent(share)} of weights and caches${verdict}`,
    );
  };
  print(`weights ${mib(weightBytes)}, with caches ${mib(modelBytes)} by the engine's account`);
  row("first model, opened", "empty", "firstOpened");
  row("first model, used", "empty", "firstUsed");
  row("second worker, opened", "firstUsed", "secondOpened", SHARE_TARGET);
  row("second worker, used", "firstUsed", "secondUsed", SHARE_TARGET);
  row(`adapter of rank ${RANK}, used`, "secondUsed", "adapterUsed", SHARE_TARGET);
  print(`the adapter's file has ${mib(adapterBytes)}`);
  print(
    `idle CPU: ${percent(idleCpu)} of a core (target below ${percent(IDLE_TARGET)}: ${idleCpu < IDLE_TARGET ? "met" : "MISSED"})`,
  );
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
