/**
 * From a registration to what can be loaded: the source resolved to a directory, its headers and tokenizer checked, the
 * adapter opened. Done once per version and kept, since every use needs it.
 */
import { createLimiter } from "../../concurrency.ts";
import { fail, PreceptorError } from "../../errors.ts";
import { openAdapter } from "../../model/adapter.ts";
import type { AdapterFiles, Checkpoint } from "../../model/checkpoint.ts";
import { openCheckpoint } from "../../model/open.ts";
import { parseModelSource, resolveLocalModel } from "../../model/source.ts";
import type { TextModel, TextService } from "../../text/text.ts";

export interface Prepared {
  checkpoint: Checkpoint;
  text: TextModel;
  adapter: AdapterFiles | null;
}

export interface Preparation {
  /**
   * Starts, joins or repeats it; what failed is tried again on the next call. `fresh` reads files again that were read
   * before: whoever registers a model means what lies there now.
   */
  prepare(version: VersionSource, options?: { fresh?: boolean }): Promise<Prepared>;
  /**
   * What can be told within milliseconds. Reads the headers of a local checkpoint, but loads no tokenizer and begins no
   * download or conversion: lists of many models stay quick.
   */
  look(version: VersionSource): Promise<Known>;
  /** What a finished `prepare` gave. */
  prepared(version: VersionSource): Prepared | undefined;
  /** Frees what is kept about a source that is no longer registered; of one adapter only where it is named. */
  forget(version: { source: string; adapter?: string | null }): void;
  /** A local source as a resolved path, so that two names of one place compare equal; others as they are. */
  locate(source: string): Promise<string>;
  /** What its first preparation needs beyond milliseconds. Throws what is wrong with the source. */
  effort(version: VersionSource): Promise<"none" | "conversion" | "download">;
}

export interface Known {
  state: "unknown" | "pending" | "ready" | "failed";
  checkpoint?: Checkpoint;
  prepared?: Prepared;
  error?: unknown;
}

export interface VersionSource {
  source: string;
  adapter: string | null;
}

export interface PreparationDeps {
  text: TextService;
  modelsDirs: readonly string[];
  /** Roots beside the models directories under which prepared files may lie (caches). */
  cacheRoots: readonly string[];
  /** A GGUF file → a checkpoint directory in the cache. */
  materialiseGguf: (path: string) => Promise<string>;
  /** A hub id → a snapshot directory, downloaded where needed. */
  resolveHub: (id: { repo: string; revision: string | null }) => Promise<string>;
}

interface Entry {
  promise: Promise<Prepared>;
  prepared?: Prepared;
  failed?: { error: unknown };
}

/**
 * Conversions of GGUF files under way at once. One computes, reads and writes as fast as the disk allows and holds its
 * largest tensor in memory; with two, a small file does not wait for the end of a large one.
 */
const PARALLEL_CONVERSIONS = 2;

export function createPreparation(deps: PreparationDeps): Preparation {
  const entries = new Map<string, Entry>();
  /** By source: versions that differ in their adapter share a checkpoint. */
  const checkpoints = new Map<string, Promise<Checkpoint>>();
  const converting = createLimiter(PARALLEL_CONVERSIONS);
  const allowedRoots = [...deps.modelsDirs, ...deps.cacheRoots];
  const keyOf = ({ source, adapter }: VersionSource): string => `${source}\n${adapter ?? ""}`;

  async function directoryOf(source: string): Promise<string> {
    const parsed = parseModelSource(source);
    if (parsed.kind === "openai" || parsed.kind === "tinker") {
      throw fail(
        "unsupported_by_backend",
        `this version serves checkpoints itself; ${parsed.kind}+http models need an engine that is not built yet`,
        { param: "model" },
      );
    }
    const local =
      parsed.kind === "path"
        ? await resolveLocalModel(parsed.path, deps.modelsDirs)
        : await resolveLocalModel(await deps.resolveHub(parsed), allowedRoots);
    return local.kind === "gguf" ? converting(() => deps.materialiseGguf(local.path)) : local.path;
  }

  /** The checkpoint of a source, opened once; a failure is not kept. */
  function checkpointOf(source: string): Promise<Checkpoint> {
    const known = checkpoints.get(source);
    if (known) return known;
    const opening = directoryOf(source).then((directory) => openCheckpoint(directory, { allowedRoots }));
    checkpoints.set(source, opening);
    opening.catch(() => {
      if (checkpoints.get(source) === opening) checkpoints.delete(source);
    });
    return opening;
  }

  async function run({ source, adapter }: VersionSource): Promise<Prepared> {
    const checkpoint = await checkpointOf(source);
    const [text, files] = await Promise.all([
      deps.text.open(checkpoint.directory),
      adapter === null ? null : openAdapterUnder(adapter, checkpoint, deps.modelsDirs),
    ]);
    if (text.size > checkpoint.config.vocabSize) {
      throw fail(
        "invalid_checkpoint",
        `the tokenizer knows ${text.size} ids but the model has only ${checkpoint.config.vocabSize}; they do not belong together`,
        { param: "model" },
      );
    }
    return { checkpoint, text, adapter: files };
  }

  async function effort({ source }: VersionSource): Promise<"none" | "conversion" | "download"> {
    const parsed = parseModelSource(source);
    if (parsed.kind === "hf") return "download";
    if (parsed.kind !== "path") return "none";
    const local = await resolveLocalModel(parsed.path, deps.modelsDirs);
    return local.kind === "gguf" ? "conversion" : "none";
  }

  return {
    effort,
    prepared: (version) => entries.get(keyOf(version))?.prepared,
    prepare(version, { fresh = false } = {}) {
      const key = keyOf(version);
      const known = entries.get(key);
      const settled = known?.prepared !== undefined || known?.failed !== undefined;
      if (known && !known.failed && !(fresh && settled)) return known.promise;
      if (fresh) checkpoints.delete(version.source);
      const entry: Entry = { promise: run(version) };
      entries.set(key, entry);
      entry.promise.then(
        (prepared) => {
          entry.prepared = prepared;
        },
        (error: unknown) => {
          entry.failed = { error };
        },
      );
      return entry.promise;
    },
    async look(version) {
      const entry = entries.get(keyOf(version));
      if (entry?.prepared) return { state: "ready", prepared: entry.prepared, checkpoint: entry.prepared.checkpoint };
      if (entry?.failed) return { state: "failed", error: entry.failed.error };
      if (entry) return { state: "pending" };
      try {
        if ((await effort(version)) !== "none") return { state: "unknown" };
        return { state: "unknown", checkpoint: await checkpointOf(version.source) };
      } catch (error) {
        return { state: "failed", error };
      }
    },
    forget({ source, adapter }) {
      const prefix = `${source}\n`;
      for (const key of [...entries.keys()]) {
        if (adapter === undefined ? key.startsWith(prefix) : key === keyOf({ source, adapter })) entries.delete(key);
      }
      if (![...entries.keys()].some((key) => key.startsWith(prefix))) checkpoints.delete(source);
    },
    async locate(source) {
      const parsed = parseModelSource(source);
      return parsed.kind === "path" ? (await resolveLocalModel(parsed.path, deps.modelsDirs)).path : source;
    },
  };
}

async function openAdapterUnder(
  adapter: string,
  checkpoint: Checkpoint,
  modelsDirs: readonly string[],
): Promise<AdapterFiles> {
  try {
    const { path } = await resolveLocalModel(adapter, modelsDirs);
    return await openAdapter(path, checkpoint, { allowedRoots: modelsDirs });
  } catch (error) {
    if (!(error instanceof PreceptorError)) throw error;
    throw fail(error.code, error.message, { param: "adapter", cause: error });
  }
}
