/** Where saved weights are kept. */
import path from "node:path";
import { newId } from "../ids.ts";
import type { JobQueue } from "../jobs/queue.ts";
import { weightsHashOf } from "./checkpoint.ts";
import { announceFolder, settleFolder } from "./checkpoint-folders.ts";

export interface NewCheckpoint {
  kind: "adapter" | "full";
  /** Everything it was made of. */
  config: Readonly<Record<string, unknown>>;
  /** Writes the files into a directory that does not exist yet, complete or not at all; tells the step of the weights. */
  write(directory: string): Promise<{ step: number }>;
}

export interface StoredCheckpoint {
  /** `ckpt_…` */
  id: string;
  step: number;
  createdAt: Date;
}

export interface CheckpointStore {
  create(checkpoint: NewCheckpoint): Promise<StoredCheckpoint>;
}

/** Directories `<root>/ckpt_…`, noted by `add`. */
export function createCheckpointStore(root: string, add: JobQueue["addLooseCheckpoint"]): CheckpointStore {
  return {
    async create({ kind, config, write }) {
      const id = newId("ckpt");
      await announceFolder(root, id);
      const directory = path.join(root, id);
      const { step } = await write(directory);
      const weightsHash = await weightsHashOf(directory, kind);
      const { createdAt } = await add({ id, step, kind, artifact: `checkpoints/${id}`, weightsHash, config });
      await settleFolder(root, id);
      return { id, step, createdAt };
    },
  };
}
