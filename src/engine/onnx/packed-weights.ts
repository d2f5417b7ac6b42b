import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { fail, PreceptorError } from "../../errors.ts";
import { headMatrix, matricesOf, type PackedMatrix, type PlannedMatrix } from "../../graph/matrices.ts";
import { SCHEMES, type Scheme } from "../../graph/quantise.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import { syncDirectory } from "../../sync-directory.ts";
import type { Precision } from "../engine.ts";
import type { ComputeGuard } from "./exit-guard.ts";
import { located, type PackedIndex, readIndex, writeIndex } from "./packing/index-file.ts";
import { packingKey } from "./packing/key.ts";
import { pack } from "./packing/pack.ts";
import { diskBytes } from "./packing/pieces.ts";
import { digests } from "./packing/products.ts";
import { requireRoom } from "./packing/room.ts";

/** The matrices of a model as the kernels of this machine want them, in a file that every session maps. */
export interface PackedWeights {
  /** Names what these bytes are: same key, same mapped pages. */
  key: string;
  directory: string;
  /** That a session maps. */
  bytes: number;
  /** By the names of graph/matrices.ts. */
  matrices: ReadonlyMap<string, PackedMatrix>;
}

const SCHEME_OF: Readonly<Record<Precision, Scheme | null>> = { fp32: null, ...SCHEMES };
/** At 8 bits the head takes back a fifth of what 4 bits cost (SmolLM2-135M, `models inspect`), for a seventh more memory. */
const HEAD_SCHEME_OF: Readonly<Record<Precision, Scheme | null>> = {
  ...SCHEME_OF,
  q4: SCHEMES.q8,
  q4_0: SCHEMES.q8_0,
};

function planned(checkpoint: Checkpoint, precision: Precision): PlannedMatrix[] {
  const head = headMatrix(checkpoint.config).name;
  return matricesOf(checkpoint.config).map((matrix) => ({
    ...matrix,
    scheme: (matrix.name === head ? HEAD_SCHEME_OF : SCHEME_OF)[precision],
  }));
}

const TEMPORARY = ".tmp";
/** No packing takes so long; what is older was left by a process that died. */
const STALE_MS = 24 * 60 * 60 * 1000;

interface Wanted {
  checkpoint: Checkpoint;
  matrices: readonly PlannedMatrix[];
  directory: string;
  guard?: ComputeGuard | undefined;
}

/**
 * From `<cacheDir>/packed/<key>/`, written on first use. Errors: `engine_failed` when the cache cannot be written or has too
 * little room. `guard` wraps native calls; see exit-guard.ts.
 */
export async function packedWeights(
  checkpoint: Checkpoint,
  precision: Precision,
  cacheDir: string,
  guard?: ComputeGuard,
): Promise<PackedWeights> {
  const key = await packingKey(checkpoint, precision);
  const directory = path.join(path.resolve(cacheDir), "packed", key);
  const wanted: Wanted = { checkpoint, matrices: planned(checkpoint, precision), directory, guard };
  const index = (await usable(wanted)) ?? (await write(wanted));
  return { key, directory, bytes: index.mappedBytes, matrices: located(directory, index.matrices) };
}

/** What lies there, if it is whole and the kernels of this process still compute with it what they did when it was packed. */
async function usable({ matrices, directory, guard }: Wanted): Promise<PackedIndex | null> {
  const index = await readIndex(directory, matrices);
  const probe = matrices.filter(({ name }) => name === index?.probe.name);
  if (!index || probe.length === 0) return null;
  try {
    const digest = digests({ directory, guard }, probe, index.matrices).get(index.probe.name);
    return digest === index.probe.digest ? index : null;
  } catch {
    return null;
  }
}

async function write(wanted: Wanted): Promise<PackedIndex> {
  const { directory, checkpoint, ...job } = wanted;
  const folder = path.dirname(directory);
  const temporary = `${directory}.${randomUUID()}${TEMPORARY}`;
  try {
    await mkdir(temporary, { recursive: true });
    await removeStale(folder);
    await requireRoom(folder, diskBytes(job.matrices));
    const index = await pack({ ...job, tensors: checkpoint.tensors, directory: temporary });
    await writeIndex(temporary, index);
    return await publish(temporary, index, wanted);
  } catch (cause) {
    if (cause instanceof PreceptorError) throw cause;
    const help = "the packed weights could not be written to the cache; check its disk space and rights";
    throw fail("engine_failed", help, { cause });
  } finally {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
  }
}

/** The directory appears complete or not at all. Where another process was faster, its result is as good. */
async function publish(temporary: string, index: PackedIndex, wanted: Wanted): Promise<PackedIndex> {
  const { directory } = wanted;
  await syncDirectory(temporary);
  if (await renamed(temporary, directory)) return index;
  const theirs = await usable(wanted);
  if (theirs) return theirs;
  const damaged = `${directory}.${randomUUID()}${TEMPORARY}`;
  await rename(directory, damaged);
  await rename(temporary, directory);
  await rm(damaged, { recursive: true, force: true });
  return index;
}

async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    await syncDirectory(path.dirname(to));
    return true;
  } catch (error) {
    if (["ENOTEMPTY", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "")) return false;
    throw error;
  }
}

async function removeStale(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const file = path.join(folder, name);
    const age = Date.now() - ((await stat(file).catch(() => null))?.mtimeMs ?? Date.now());
    if (name.endsWith(TEMPORARY) && age > STALE_MS) await rm(file, { recursive: true, force: true });
  }
}
