/** Checkpoints of a run on disk: what can be served, and all that is needed to go on to the bit. */
import { randomUUID } from "node:crypto";
import { cp, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { TrainingModel } from "../engine/engine.ts";
import { fail } from "../errors.ts";
import { openAdapter } from "../model/adapter.ts";
import { openCheckpoint } from "../model/open.ts";
import { syncDirectory } from "../sync-directory.ts";
import { announceFolder, settleFolder } from "./checkpoint-folders.ts";
import type { RunState } from "./run.ts";

const STATE = "run_state.json";
/** The model that the policy is held to, where that is not the base. */
const REFERENCE = "reference";

export interface RunCheckpoints {
  /** Durable when it resolves; the directory appears complete or not at all. Then the caller writes its row and calls `settle`. */
  save(id: string, run: { training: TrainingModel; state: RunState; reference: string | null }): Promise<string>;
  settle(id: string): Promise<void>;
  read(directory: string): Promise<{ state: RunState; reference: string | null }>;
  remove(directory: string): Promise<void>;
  directoryOf(id: string): string;
}

/** `root`: folder of all checkpoints. */
export function createRunCheckpoints(root: string): RunCheckpoints {
  const directoryOf = (id: string): string => path.join(root, id);
  return {
    directoryOf,
    async save(id, { training, state, reference }) {
      await mkdir(root, { recursive: true });
      const target = directoryOf(id);
      const temporary = path.join(root, `.${id}.${randomUUID()}.tmp`);
      try {
        await training.save(temporary, { state: true });
        if (reference) await cp(reference, path.join(temporary, REFERENCE), { recursive: true });
        await writeFile(
          path.join(temporary, STATE),
          `${JSON.stringify({ ...state, reference: reference !== null })}\n`,
        );
        await syncDirectory(temporary);
        await announceFolder(root, id);
        await rename(temporary, target);
        await syncDirectory(root);
      } catch (error) {
        await rm(temporary, { recursive: true, force: true });
        throw error;
      }
      return target;
    },
    settle: (id) => settleFolder(root, id),
    async read(directory) {
      const found = await readFile(path.join(directory, STATE), "utf8").catch((cause: unknown) => {
        throw fail("invalid_checkpoint", `the checkpoint's files are gone from ${path.basename(directory)}`, { cause });
      });
      const { reference, ...state } = JSON.parse(found) as RunState & { reference: boolean };
      return { state, reference: reference ? path.join(directory, REFERENCE) : null };
    },
    remove: (directory) => rm(directory, { recursive: true, force: true }),
  };
}

/** Identity of saved weights: an adapter's content, or samples of every tensor. */
export async function weightsHashOf(directory: string, kind: "adapter" | "full"): Promise<string> {
  return kind === "full" ? (await openCheckpoint(directory)).weightsHash : (await openAdapter(directory, null)).hash;
}
