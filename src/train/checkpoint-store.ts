/** Where saved weights are kept. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { newId } from "../http/ids.ts";

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

/** Directories `<root>/ckpt_…` and nothing else. */
export function createCheckpointFiles(root: string, now: () => Date): CheckpointStore {
  return {
    async create({ write }) {
      await mkdir(root, { recursive: true });
      const id = newId("ckpt");
      const { step } = await write(path.join(root, id));
      return { id, step, createdAt: now() };
    },
  };
}
