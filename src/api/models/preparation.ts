/**
 * From a registration to what can be loaded: the source resolved to a directory, its headers and tokenizer checked, the
 * adapter opened. Done once per version and kept, since every use needs it.
 */
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
  /** Starts, joins or repeats it; what failed is tried again on the next call. */
  prepare(version: VersionSource): Promise<Prepared>;
  /** What is known without waiting. */
  peek(version: VersionSource): {
    state: "unknown" | "pending" | "ready" | "failed";
    prepared?: Prepared;
    error?: unknown;
  };
  /** Whether it may take minutes (a download, a conversion) rather than milliseconds. */
  isLong(version: VersionSource): boolean;
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
  error?: unknown;
}

export function createPreparation(deps: PreparationDeps): Preparation {
  const entries = new Map<string, Entry>();
  const keyOf = ({ source, adapter }: VersionSource): string => `${source}\n${adapter ?? ""}`;

  async function directoryOf(source: string): Promise<string> {
    const parsed = parseModelSource(source);
    switch (parsed.kind) {
      case "path": {
        const local = await resolveLocalModel(parsed.path, deps.modelsDirs);
        return local.kind === "gguf" ? deps.materialiseGguf(local.path) : local.path;
      }
      case "hf": {
        const snapshot = await deps.resolveHub(parsed);
        const local = await resolveLocalModel(snapshot, [...deps.modelsDirs, ...deps.cacheRoots]);
        return local.kind === "gguf" ? deps.materialiseGguf(local.path) : local.path;
      }
      default:
        throw fail(
          "unsupported_by_backend",
          `this version serves checkpoints itself; ${parsed.kind}+http models need an engine that is not built yet`,
          { param: "model" },
        );
    }
  }

  async function run({ source, adapter }: VersionSource): Promise<Prepared> {
    const allowedRoots = [...deps.modelsDirs, ...deps.cacheRoots];
    const checkpoint = await openCheckpoint(await directoryOf(source), { allowedRoots });
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

  return {
    prepare(version) {
      const key = keyOf(version);
      const known = entries.get(key);
      if (known && known.error === undefined) return known.promise;
      const entry: Entry = { promise: run(version) };
      entries.set(key, entry);
      entry.promise.then(
        (prepared) => {
          entry.prepared = prepared;
        },
        (error: unknown) => {
          entry.error = error;
        },
      );
      return entry.promise;
    },
    peek(version) {
      const entry = entries.get(keyOf(version));
      if (!entry) return { state: "unknown" };
      if (entry.prepared) return { state: "ready", prepared: entry.prepared };
      return entry.error === undefined ? { state: "pending" } : { state: "failed", error: entry.error };
    },
    isLong({ source }) {
      return source.startsWith("hf:") || source.toLowerCase().endsWith(".gguf");
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
