/**
 * From a registration to what can be used: a checkpoint's directory found, its headers and tokenizer checked, its adapter opened;
 * or a remote server reached and probed. Done once per version and kept, since every use needs it.
 */
import path from "node:path";
import { createLimiter } from "../../concurrency.ts";
import type { RemoteModel } from "../../engine/engine.ts";
import { fail, PreceptorError } from "../../errors.ts";
import { openAdapter } from "../../model/adapter.ts";
import type { AdapterFiles, Checkpoint } from "../../model/checkpoint.ts";
import type { HubFiles } from "../../model/hub/types.ts";
import { openCheckpoint } from "../../model/open.ts";
import { type LocalModel, parseModelSource, resolveLocalModel } from "../../model/source.ts";
import type { TextModel, TextService } from "../../text/text.ts";
import { connectionKey, createConnections, sharedKey } from "./connections.ts";
import type { ConnectedRemote, RemoteSource, RemotesDeps } from "./remotes.ts";

export type Prepared = PreparedCheckpoint | PreparedRemote;

export interface PreparedCheckpoint {
  kind: "checkpoint";
  checkpoint: Checkpoint;
  text: TextModel;
  adapter: AdapterFiles | null;
}

export interface PreparedRemote extends ConnectedRemote {
  kind: "remote";
  adapter: AdapterFiles | null;
  /** Until what it returns is called, the connection stays, also where the model is deleted meanwhile. */
  hold(): () => void;
}

export interface Preparation {
  /**
   * Starts, joins or repeats it; what failed is tried again on the next call. `fresh` reads files again that were read
   * before, and probes servers anew: whoever registers a model means what is there now.
   */
  prepare(version: VersionSource, options?: { fresh?: boolean }): Promise<Prepared>;
  /**
   * What can be told within milliseconds. Reads the headers of a local checkpoint, but loads no tokenizer and begins no
   * download or conversion: lists of many models stay quick.
   */
  look(version: VersionSource): Promise<Known>;
  /** What a finished `prepare` gave. */
  prepared(version: VersionSource): Prepared | undefined;
  /** Frees what is kept about a version. */
  forget(version: VersionSource): void;
  /** And about all that share its files or its connection (`isShared`). */
  forgetShared(version: VersionSource): void;
  /** A local source as a resolved path, so that two names of one place compare equal; others as they are. */
  locate(source: string): Promise<string>;
  /** What its first preparation needs beyond milliseconds. Throws what is wrong with the source. */
  effort(version: VersionSource): Promise<Effort>;
  /** Those that are connected. */
  remotes(): RemoteModel[];
  /** That of a remote model (its `tokenizer` field); no server is asked. */
  tokenizer(source: string): Promise<TextModel>;
  /** Leaves all remote servers, also those that do not answer. */
  close(): Promise<void>;
}

export type Effort = "none" | "conversion" | "download" | "connection";

export interface Known {
  state: "unknown" | "pending" | "ready" | "failed";
  checkpoint?: Checkpoint;
  prepared?: Prepared;
  error?: unknown;
}

export interface VersionSource extends RemoteSource {
  adapter: string | null;
}

export interface PreparationDeps {
  text: TextService;
  modelsDirs: readonly string[];
  /** Where trained checkpoints lie, each in a folder of its id: a `ckpt_…` in place of a model's or an adapter's path. */
  checkpointsDir: string;
  /** Roots beside the models directories under which prepared files may lie (caches). */
  cacheRoots: readonly string[];
  /** A GGUF file → a checkpoint directory in the cache. */
  materialiseGguf: (path: string) => Promise<string>;
  /** A hub id → a snapshot directory, downloaded where needed; of a remote model only the tokenizer's files. */
  resolveHub: (id: { repo: string; revision: string | null; files: HubFiles }) => Promise<string>;
  remotes: Pick<RemotesDeps, "engine" | "credential" | "unverified">;
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
  const connections = createConnections({
    ...deps.remotes,
    text: deps.text,
    tokenizerDirectory: (source) => directoryOf(source, "tokenizer"),
    allowedRoots: [...deps.modelsDirs, ...deps.cacheRoots],
  });
  const converting = createLimiter(PARALLEL_CONVERSIONS);
  const allowedRoots = [...deps.modelsDirs, ...deps.cacheRoots, deps.checkpointsDir];
  const keyOf = (version: VersionSource): string => `${connectionKey(version)}\n${version.adapter ?? ""}`;

  async function directoryOf(source: string, files: HubFiles): Promise<string> {
    const parsed = parseModelSource(source);
    if (parsed.kind === "tinker") {
      throw fail("unsupported_by_backend", "tinker+http models need an engine that is not built yet", {
        param: "model",
      });
    }
    if (parsed.kind === "openai") throw fail("invalid_value", "a server is no directory; give a path or hf:org/name");
    const local =
      parsed.kind === "path"
        ? await resolveLocal(parsed.path, deps)
        : await resolveLocalModel(await deps.resolveHub({ ...parsed, files }), allowedRoots);
    return local.kind === "gguf" ? converting(() => deps.materialiseGguf(local.path)) : local.path;
  }

  /** The checkpoint of a source, opened once; a failure is not kept. */
  function checkpointOf(source: string): Promise<Checkpoint> {
    const known = checkpoints.get(source);
    if (known) return known;
    const opening = directoryOf(source, "model").then((directory) => openCheckpoint(directory, { allowedRoots }));
    checkpoints.set(source, opening);
    opening.catch(() => {
      if (checkpoints.get(source) === opening) checkpoints.delete(source);
    });
    return opening;
  }

  async function run(version: VersionSource, fresh: boolean): Promise<Prepared> {
    const { source, adapter } = version;
    if (parseModelSource(source).kind === "openai") {
      const { remote, hold } = await connections.open(version, { fresh });
      const files = adapter === null ? null : await openAdapterUnder(adapter, null, deps);
      if (files && !remote.model.capabilities.adapters) throw noAdapters();
      return { kind: "remote", ...remote, adapter: files, hold };
    }
    const checkpoint = await checkpointOf(source);
    const [text, files] = await Promise.all([
      deps.text.open(checkpoint.directory),
      adapter === null ? null : openAdapterUnder(adapter, checkpoint, deps),
    ]);
    if (text.size > checkpoint.config.vocabSize) {
      throw fail(
        "invalid_checkpoint",
        `the tokenizer knows ${text.size} ids but the model has only ${checkpoint.config.vocabSize}; they do not belong together`,
        { param: "model" },
      );
    }
    return { kind: "checkpoint", checkpoint, text, adapter: files };
  }

  async function effort({ source }: VersionSource): Promise<Effort> {
    const parsed = parseModelSource(source);
    if (parsed.kind === "hf") return "download";
    if (parsed.kind === "openai") return "connection";
    if (parsed.kind !== "path") return "none";
    const local = await resolveLocal(parsed.path, deps);
    return local.kind === "gguf" ? "conversion" : "none";
  }

  function dropUnused({ source }: VersionSource): void {
    const left = [...entries.keys()];
    if (!left.some((key) => key.startsWith(`${source}\n`))) checkpoints.delete(source);
    connections.dropUnless((key) => left.some((other) => other.startsWith(`${key}\n`)));
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
      const entry: Entry = { promise: run(version, fresh) };
      // A server goes on serving while it is asked what it can do.
      if (known?.prepared?.kind === "remote") entry.prepared = known.prepared;
      entries.set(key, entry);
      entry.promise.then(
        (prepared) => {
          entry.prepared = prepared;
        },
        (error: unknown) => {
          delete entry.prepared;
          entry.failed = { error };
        },
      );
      return entry.promise;
    },
    async look(version) {
      const entry = entries.get(keyOf(version));
      if (entry?.prepared) {
        const { prepared } = entry;
        return {
          state: "ready",
          prepared,
          ...(prepared.kind === "checkpoint" ? { checkpoint: prepared.checkpoint } : {}),
        };
      }
      if (entry?.failed) return { state: "failed", error: entry.failed.error };
      if (entry) return { state: "pending" };
      try {
        const needed = await effort(version);
        if (needed === "connection") {
          // What a server can do is known only from asking it; the next look finds the answer.
          this.prepare(version).catch(() => undefined);
          return { state: "pending" };
        }
        if (needed !== "none") return { state: "unknown" };
        return { state: "unknown", checkpoint: await checkpointOf(version.source) };
      } catch (error) {
        return { state: "failed", error };
      }
    },
    forget(version) {
      entries.delete(keyOf(version));
      dropUnused(version);
    },
    forgetShared(version) {
      const prefix = `${sharedKey(version)}\n`;
      for (const key of [...entries.keys()]) if (key.startsWith(prefix)) entries.delete(key);
      dropUnused(version);
    },
    remotes: () => connections.models(),
    tokenizer: async (source) => deps.text.open(await directoryOf(source, "tokenizer")),
    close: () => connections.close(),
    async locate(source) {
      const parsed = parseModelSource(source);
      return parsed.kind === "path" ? (await resolveLocal(parsed.path, deps)).path : source;
    },
  };
}

function noAdapters(): Error {
  return fail(
    "unsupported_by_backend",
    "this server loads no adapters at run time; start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or serve " +
      "the adapter under a name of its own and register that",
    { param: "adapter" },
  );
}

type Roots = Pick<PreparationDeps, "modelsDirs" | "checkpointsDir">;

export const isCheckpointId = (text: string): boolean => /^ckpt_[0-9a-z]{1,64}$/.test(text);

async function resolveLocal(model: string, { modelsDirs, checkpointsDir }: Roots): Promise<LocalModel> {
  if (!isCheckpointId(model)) return resolveLocalModel(model, modelsDirs);
  try {
    return await resolveLocalModel(path.join(checkpointsDir, model), [checkpointsDir]);
  } catch (cause) {
    throw fail("model_source_not_found", `the checkpoint ${model} does not exist (any more)`, {
      param: "model",
      cause,
    });
  }
}

async function openAdapterUnder(adapter: string, checkpoint: Checkpoint | null, roots: Roots): Promise<AdapterFiles> {
  try {
    const { path: directory } = await resolveLocal(adapter, roots);
    return await openAdapter(directory, checkpoint, { allowedRoots: [...roots.modelsDirs, roots.checkpointsDir] });
  } catch (error) {
    if (!(error instanceof PreceptorError)) throw error;
    throw fail(error.code, error.message, { param: "adapter", cause: error });
  }
}
