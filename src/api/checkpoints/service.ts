import { createReadStream } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import path from "node:path";
import { type TarEntry, tar } from "../../artifacts/tar.ts";
import type { PageQuery } from "../../db/records.ts";
import { fail, PreceptorError } from "../../errors.ts";
import { unixSeconds } from "../../http/schemas.ts";
import type { JobQueue } from "../../jobs/queue.ts";
import type { CheckpointRecord } from "../../jobs/records.ts";
import { companionsOf } from "../../model/companions.ts";
import { mergedTensors } from "../../model/merge-adapter.ts";
import { safetensorsFile } from "../../model/safetensors-write.ts";
import type { TrainingBases } from "../models/training-base.ts";
import type { CheckpointDetail, CheckpointResource } from "./schemas.ts";

export interface CheckpointService {
  list(query: PageQuery & { job?: string | undefined }): Promise<{ data: CheckpointResource[]; hasMore: boolean }>;
  get(id: string): Promise<CheckpointDetail>;
  file(id: string, name: string): Promise<CheckpointFile>;
  /** All files as one tar archive; `merged`: of an adapter, its base with the adapter in it instead. */
  archive(
    id: string,
    how: { merged: boolean; signal: AbortSignal },
  ): Promise<{ bytes: number; read(): AsyncIterable<Uint8Array> }>;
  remove(id: string): Promise<void>;
}

export interface CheckpointFile {
  bytes: number;
  etag: string;
  /** `end`: one past the last byte. */
  read(start: number, end: number): AsyncIterable<Uint8Array>;
}

export interface CheckpointDeps {
  queue: Pick<JobQueue, "listCheckpoints" | "findCheckpoint" | "removeCheckpoint" | "needing" | "find">;
  /** Where the folders of checkpoints lie. */
  directory: string;
  /** Names of model versions whose current weights it is. */
  usedBy(id: string): Promise<string[]>;
  /** What adapters lie over. */
  bases: TrainingBases;
}

const BASE_GONE: ReadonlySet<string> = new Set([
  "model_not_found",
  "model_source_not_found",
  "model_source_not_allowed",
]);

type ArchiveFile = Pick<TarEntry, "name" | "bytes" | "read">;

export function createCheckpointService({ queue, directory, usedBy, bases }: CheckpointDeps): CheckpointService {
  async function find(id: string): Promise<CheckpointRecord> {
    const found = await queue.findCheckpoint(id);
    if (found && !found.deletedAt) return found;
    throw fail("not_found", "there is no such checkpoint; GET /v1/checkpoints lists all");
  }

  const folderOf = ({ id }: CheckpointRecord): string => path.join(directory, id);

  async function filesOf(record: CheckpointRecord): Promise<ArchiveFile[]> {
    const folder = folderOf(record);
    const files = await filesIn(folder);
    return files.map(({ name, bytes }) => ({ name, bytes, read: () => bytesOf(path.join(folder, name), 0, bytes) }));
  }

  /** A complete model: the base's config and tokenizer, and its weights with the adapter in them. */
  async function mergedFiles(record: CheckpointRecord, signal: AbortSignal): Promise<ArchiveFile[]> {
    const { model, request } = record.config as { model?: string | null; request?: { model: string } };
    const name = model ?? request?.model ?? "";
    const { checkpoint, adapter } = await bases
      .trainingBase(name, { adapter: record.id, signal })
      .catch((error: unknown) => {
        if (!(error instanceof PreceptorError) || !BASE_GONE.has(error.code)) throw error;
        throw fail(error.code, `merged: ${name}, which this adapter lies over, is not here any more`, {
          param: "merged",
        });
      });
    const base = checkpoint.directory;
    const companions = await Promise.all(
      (await companionsOf(base)).map(async (name) => {
        const { size: bytes } = await stat(path.join(base, name));
        return { name, bytes, read: () => bytesOf(path.join(base, name), 0, bytes) };
      }),
    );
    return [...companions, { name: "model.safetensors", ...safetensorsFile(mergedTensors(checkpoint, adapter!)) }];
  }

  return {
    async list({ job, ...page }) {
      const { rows, hasMore } = await queue.listCheckpoints({ ...page, jobId: job });
      return { data: rows.map(toResource), hasMore };
    },

    async get(id) {
      const record = await find(id);
      const files = await filesIn(folderOf(record));
      return { ...toResource(record), files: files.filter(({ name }) => !name.includes("/")) };
    },

    async file(id, name) {
      const record = await find(id);
      const file = (await filesIn(folderOf(record))).find((each) => each.name === name && !name.includes("/"));
      if (!file) throw fail("not_found", "this checkpoint has no such file; GET /v1/checkpoints/{id} lists them");
      return {
        bytes: file.bytes,
        // Files of a checkpoint never change.
        etag: `"${id}-${file.bytes}"`,
        read: (start, end) => bytesOf(path.join(folderOf(record), name), start, end),
      };
    },

    async archive(id, { merged, signal }) {
      const record = await find(id);
      const entries = merged && record.kind === "adapter" ? await mergedFiles(record, signal) : await filesOf(record);
      return tar(entries.map((entry) => ({ ...entry, name: `${id}/${entry.name}`, modified: record.createdAt })));
    },

    async remove(id) {
      const record = await find(id);
      const owner = record.jobId === null ? undefined : await queue.find(record.jobId);
      const jobs = [...(owner && !owner.finishedAt ? [owner.id] : []), ...(await queue.needing(id))];
      if (jobs[0])
        throw fail("conflict", `the job ${jobs[0]} needs this checkpoint; cancel it first, or wait for its end`);
      const [model] = await usedBy(id);
      if (model)
        throw fail("conflict", `${model} is made of this checkpoint; delete that model, or give it another version`);
      if (!(await queue.removeCheckpoint(id))) await find(id);
      await rm(folderOf(record), { recursive: true, force: true });
    },
  };
}

function toResource(record: CheckpointRecord): CheckpointResource {
  const { metadata = {}, ...config } = record.config as Record<string, unknown>;
  return {
    id: record.id,
    object: "checkpoint",
    created_at: unixSeconds(record.createdAt),
    job: record.jobId,
    step: record.step,
    kind: record.kind,
    model: typeof config.model === "string" ? config.model : null,
    weights_hash: record.weightsHash,
    is_best: record.isBest,
    config,
    metadata: metadata as Record<string, string>,
  };
}

/** By name, those of subfolders too; links are no files of a checkpoint. */
async function filesIn(folder: string): Promise<{ name: string; bytes: number }[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch((cause: unknown) => {
    throw fail("not_found", "the files of this checkpoint are gone", { cause });
  });
  const names = entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)).split(path.sep).join("/"));
  return Promise.all(names.sort().map(async (name) => ({ name, bytes: (await stat(path.join(folder, name))).size })));
}

function bytesOf(file: string, start: number, end: number): AsyncIterable<Uint8Array> {
  return end <= start ? nothing() : createReadStream(file, { start, end: end - 1 });
}

async function* nothing(): AsyncGenerator<Uint8Array> {}
