import { mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import path from "node:path";
import type { Engine, EngineModel, OpenOptions, Precision } from "../../engine/engine.ts";
import { estimateBytes } from "../../engine/placement.ts";
import { PreceptorError } from "../../errors.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import type { TextService } from "../../text/text.ts";
import { measureQuality, type QualityReport } from "./measure.ts";
import { createQualityStore } from "./store.ts";
import { QUALITY_TEXT } from "./text.ts";

/** What every precision of a model costs, or why that is not known. */
export type Quality = (QualityReport & { too_large: Precision[] }) | { not_measured: string };

export interface QualityDeps {
  /** Packs into this directory. */
  createEngine: (deps: { cacheDir: string }) => Pick<Engine, "open">;
  text: TextService;
  /** The data directory's cache; figures and passing files go into `quality/` in it. */
  cacheDir: string;
  budgetBytes: number;
  threads: number;
  /** Before each of `count` measurements. */
  onMeasure?: (precision: Precision, index: number, count: number) => void;
  signal?: AbortSignal;
}

/** From the most bytes per weight to the fewest: the first that fits is the reference. */
const PRECISIONS: readonly Precision[] = ["fp32", "q8_0", "q8", "q4_0", "q4"];
/** A tokenizer that knows no words makes several times as many tokens of the text; these are enough for a mean. */
const MAX_TOKENS = 1_024;

/** Known errors (a tokenizer that cannot be read, a full disk) become the reason; `cancelled` and unknown ones are thrown. */
export async function qualityOf(checkpoint: Checkpoint, deps: QualityDeps): Promise<Quality> {
  const fitting = PRECISIONS.filter((precision) => estimateBytes(checkpoint, { precision }) <= deps.budgetBytes);
  if (fitting.length === 0) return { not_measured: "it does not fit into PRECEPTOR_MODEL_MEMORY at any precision" };
  const directory = path.join(deps.cacheDir, "quality");
  const store = createQualityStore(directory);
  try {
    const text = await deps.text.open(checkpoint.directory);
    const encoded = await text.encode(QUALITY_TEXT, { parseSpecial: false, addSpecial: true });
    const ids = encoded.ids.slice(0, MAX_TOKENS);
    const key = { weightsHash: checkpoint.weightsHash, tokenizerHash: text.tokenizerHash, ids };
    const stored = await store.find(key);
    // More memory than at that time: then there is more to measure.
    const isEnough =
      stored && fitting.every((wanted) => stored.precisions.some(({ precision }) => precision === wanted));
    if (isEnough) return withTooLarge(stored);
    const report = await measure(checkpoint, { ...deps, ids, precisions: fitting, directory });
    await store.save(key, report);
    return withTooLarge(report);
  } catch (error) {
    if (deps.signal?.aborted || !(error instanceof PreceptorError)) throw error;
    return { not_measured: error.message };
  }
}

function withTooLarge(report: QualityReport): Quality {
  const measured = report.precisions.map(({ precision }) => precision);
  return { ...report, too_large: PRECISIONS.filter((precision) => !measured.includes(precision)) };
}

interface Measurement extends QualityDeps {
  ids: Int32Array;
  precisions: readonly Precision[];
  directory: string;
}

/** Each precision is packed into a directory that goes with it: kept, all of them would take twice the model's size. */
async function measure(checkpoint: Checkpoint, job: Measurement): Promise<QualityReport> {
  const { ids, precisions, directory, threads, onMeasure, signal } = job;
  await mkdir(directory, { recursive: true });
  await removeAbandoned(directory);
  const passing = await mkdtemp(path.join(directory, PASSING));
  const options = { contextLength: ids.length, threads, device: "cpu" };
  async function open(precision: Precision): Promise<EngineModel> {
    const cacheDir = path.join(passing, precision);
    const opened: OpenOptions = { ...options, precision };
    const model = await job.createEngine({ cacheDir }).open(checkpoint, opened);
    async function close(): Promise<void> {
      await model.close();
      await rm(cacheDir, { recursive: true, force: true });
    }
    return { ...model, close };
  }
  try {
    return await measureQuality({
      ids,
      precisions,
      open,
      onStart: (precision, index) => onMeasure?.(precision, index, precisions.length),
      ...(signal ? { signal } : {}),
    });
  } finally {
    await rm(passing, { recursive: true, force: true });
  }
}

const PASSING = ".measuring-";
/** No measurement takes so long; what is older was left by a process that was killed. */
const ABANDONED_MS = 24 * 60 * 60 * 1000;

async function removeAbandoned(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!name.startsWith(PASSING)) continue;
    const entry = path.join(directory, name);
    const age = Date.now() - ((await stat(entry).catch(() => null))?.mtimeMs ?? Date.now());
    if (age > ABANDONED_MS) await rm(entry, { recursive: true, force: true });
  }
}
