/** How jobs get at a dataset: by its id, checked. */
import type { ArtifactStore } from "../artifacts/store.ts";
import type { DatasetRecord, DatasetStore } from "../db/dataset-store.ts";
import { fail } from "../errors.ts";
import { type Dataset, openDatasetFiles, type Verified } from "./dataset.ts";

export interface DatasetOpener {
  /** Throws `not_found`, or `invalid_dataset` where the stored file is missing or has changed. `param` goes into the error. */
  openDataset(id: string, options?: { param?: string }): Promise<Dataset>;
  /** The head alone. */
  find(id: string, options?: { param?: string }): Promise<DatasetRecord>;
}

export function createDatasetOpener({
  store,
  artifacts,
}: {
  store: DatasetStore;
  artifacts: ArtifactStore;
}): DatasetOpener {
  const verified: Verified = new Map();
  const find: DatasetOpener["find"] = async (id, { param } = {}) => {
    const record = await store.find(id);
    if (!record) throw fail("not_found", `there is no dataset ${JSON.stringify(id.slice(0, 80))}`, { param });
    return record;
  };
  return {
    find,
    openDataset: async (id, options) => openDatasetFiles(artifacts, await find(id, options), verified),
  };
}
