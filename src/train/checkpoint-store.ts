/** Where saved weights are kept. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { newId } from "../ids.ts";
import type { JobQueue } from "../jobs/queue.ts";
import { weightsHashOf } from "./checkpoint.ts";

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
      await mkdir(root, { recursive: true });
      const id = newId("ckpt");
      const directory = path.join(root, id);
      const { step } = await write(directory);
      const weightsHash = await weightsHashOf(directory, kind);
      const { createdAt } = await add({ id, step, kind, artifact: `checkpoints/${id}`, weightsHash, config });
      return { id, step, createdAt };
    },
  };
}
