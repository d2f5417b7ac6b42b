/** How written rows become a dataset. */
import type { ArtifactStore, StagedFolder } from "../../artifacts/store.ts";
import { folderOf } from "../../datasets/dataset.ts";
import { createSieve, type Dedupe } from "../../datasets/sieve.ts";
import { type Part, rowsOf, type Sifted, sift } from "../../datasets/sift.ts";
import type { DatasetRecord, DatasetSource, DatasetStore } from "../../db/dataset-store.ts";
import { newId } from "../../ids.ts";

/** Gives folders that are gone when the work ends, however it ends, unless they were kept. */
export type Stage = () => Promise<StagedFolder>;

export interface Head {
  name: string | null;
  source: DatasetSource;
  metadata: Record<string, string>;
}

export interface Keeping {
  staged<T>(work: (stage: Stage) => Promise<T>): Promise<T>;
  keep(part: Part, head: Head, signal: AbortSignal): Promise<DatasetRecord>;
  /** What was dropped, as a dataset of its own, and what a head says of it; nothing where nothing was. */
  keepDropped(
    sifted: Sifted,
    head: Head,
    signal: AbortSignal,
  ): Promise<{ dropped: DatasetRecord | null; told: Pick<DatasetSource, "dropped"> }>;
  /** The rows without what `dedupe` drops, which is kept beside them. */
  keepDeduped(
    part: Part,
    dedupe: Dedupe | undefined,
    head: Head,
    stage: Stage,
    signal: AbortSignal,
  ): Promise<DatasetRecord>;
}

export function createKeeping({ store, artifacts }: { store: DatasetStore; artifacts: ArtifactStore }): Keeping {
  const keeping: Keeping = {
    async staged(work) {
      const folders: StagedFolder[] = [];
      try {
        return await work(async () => {
          const folder = await artifacts.stage();
          folders.push(folder);
          return folder;
        });
      } finally {
        for (const folder of folders) await folder.discard();
      }
    },

    keep({ folder, written }, head, signal) {
      signal.throwIfAborted();
      return store.insert({ id: newId("ds"), ...head, ...written }, () => folder.place(folderOf(written.contentHash)));
    },

    async keepDropped({ dropped, reasons }, { name, source, metadata }, signal) {
      if (!dropped) return { dropped: null, told: {} };
      const head = { name: named(name, "dropped"), source: { ...source, part: "dropped" as const }, metadata };
      const record = await keeping.keep(dropped, head, signal);
      return { dropped: record, told: { dropped: { dataset: record.id, rows: record.rows, reasons } } };
    },

    async keepDeduped(part, dedupe, head, stage, signal) {
      if (!dedupe) return keeping.keep(part, head, signal);
      const sifted = await sift(rowsOf(part.folder), await createSieve({ dedupe }), stage, signal);
      const { told } = await keeping.keepDropped(sifted, head, signal);
      return keeping.keep(sifted.kept, { ...head, source: { ...head.source, ...told } }, signal);
    },
  };
  return keeping;
}

/** `gsm8k (held out)`; names are for people, and short. */
export function named(name: string | null, part: string): string | null {
  return name === null ? null : `${name.slice(0, 180)} (${part})`;
}
