/** Rows that the program makes itself, as a dataset. */
import type { ArtifactStore } from "../artifacts/store.ts";
import type { DatasetSource, DatasetStore } from "../db/dataset-store.ts";
import { folderOf } from "./dataset.ts";
import { createDatasetWriter, type DatasetWriter } from "./writer.ts";

export interface KeepDeps {
  store: Pick<DatasetStore, "find" | "insert">;
  artifacts: ArtifactStore;
}

export interface KeptHead {
  id: string;
  name: string | null;
  source: DatasetSource;
}

/**
 * Keeps what `write` adds under `id`. What is there already under that id stays as it is: whoever is interrupted and begins
 * again makes nothing twice. Null: no row was added.
 */
export const keepDataset =
  ({ store, artifacts }: KeepDeps) =>
  async (
    head: KeptHead,
    write: (writer: DatasetWriter) => Promise<void>,
    signal: AbortSignal,
  ): Promise<{ id: string; rows: number } | null> => {
    const there = await store.find(head.id);
    if (there) return { id: there.id, rows: there.rows };
    const folder = await artifacts.stage();
    try {
      const writer = await createDatasetWriter(folder);
      await write(writer);
      const written = await writer.finish();
      if (written.rows === 0) return null;
      signal.throwIfAborted();
      try {
        await store.insert({ ...head, ...written, metadata: {} }, () => folder.place(folderOf(written.contentHash)));
      } catch (error) {
        // A worker that has lost the job, and does not know it yet, may have been quicker with the same rows.
        const meanwhile = await store.find(head.id);
        if (!meanwhile) throw error;
        return { id: meanwhile.id, rows: meanwhile.rows };
      }
      return { id: head.id, rows: written.rows };
    } finally {
      await folder.discard();
    }
  };
