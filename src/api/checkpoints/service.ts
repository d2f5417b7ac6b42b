import { createReadStream } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import path from "node:path";
import type { PageQuery } from "../../db/records.ts";
import { fail } from "../../errors.ts";
import { unixSeconds } from "../../http/schemas.ts";
import type { JobQueue } from "../../jobs/queue.ts";
import type { CheckpointRecord } from "../../jobs/records.ts";
import type { CheckpointDetail, CheckpointResource } from "./schemas.ts";
import { tar } from "./tar.ts";

export interface CheckpointService {
  list(query: PageQuery & { job?: string | undefined }): Promise<{ data: CheckpointResource[]; hasMore: boolean }>;
  get(id: string): Promise<CheckpointDetail>;
  file(id: string, name: string): Promise<CheckpointFile>;
  /** All files as one tar archive. */
  archive(id: string, how: { merged: boolean }): Promise<{ bytes: number; read(): AsyncIterable<Uint8Array> }>;
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
}

export function createCheckpointService({ queue, directory, usedBy }: CheckpointDeps): CheckpointService {
  async function find(id: string): Promise<CheckpointRecord> {
    const found = await queue.findCheckpoint(id);
    if (found && !found.deletedAt) return found;
    throw fail("not_found", "there is no such checkpoint; GET /v1/checkpoints lists all");
  }

  const folderOf = ({ id }: CheckpointRecord): string => path.join(directory, id);

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

    async archive(id, { merged }) {
      const record = await find(id);
      if (merged && record.kind !== "full") {
        throw fail(
          "unsupported_parameter",
          "merged: an adapter is not merged into its base here yet; download it as it is (PEFT's merge_and_unload does it)",
          { param: "merged" },
        );
      }
      const folder = folderOf(record);
      const files = await filesIn(folder);
      return tar(
        files.map(({ name, bytes }) => ({
          name: `${id}/${name}`,
          bytes,
          modified: record.createdAt,
          read: () => bytesOf(path.join(folder, name), 0, bytes),
        })),
      );
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
