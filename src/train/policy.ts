/** Weights that learn, and the same weights as something that samples and scores. */
import { rm } from "node:fs/promises";
import path from "node:path";
import type { Engine, EngineModel, OpenOptions, OptimStep, TrainingModel } from "../engine/engine.ts";
import { openAdapter } from "../model/adapter.ts";
import type { AdapterFiles, Checkpoint } from "../model/checkpoint.ts";
import { openCheckpoint } from "../model/open.ts";

export interface Current {
  engine: EngineModel;
  adapter: AdapterFiles | null;
}

export interface Policy {
  readonly training: TrainingModel;
  /** The weights as they are now; what it gave before an `optimStep` is not to be used after it. */
  current(): Promise<Current>;
  optimStep(options: OptimStep): Promise<{ step: number; gradNorm: number }>;
  restore(directory: string): Promise<void>;
  close(): Promise<void>;
}

export interface PolicyDeps {
  training: TrainingModel;
  checkpoint: Checkpoint;
  /** What all parameters, once trained, are opened with; null for adapters, which the base itself serves. */
  full: { engine: Pick<Engine, "open">; options: OpenOptions } | null;
  base: EngineModel;
  /** An empty folder for weights on their way to what serves them. */
  scratch: string;
}

export function createPolicy({ training, checkpoint, full, base, scratch }: PolicyDeps): Policy {
  let version = 0;
  let served: { version: number; current: Current; leave(): Promise<void> } | null = null;

  async function serve(): Promise<{ current: Current; leave(): Promise<void> }> {
    const directory = path.join(scratch, `weights-${version}`);
    await rm(directory, { recursive: true, force: true });
    await training.save(directory, { state: false });
    const remove = (): Promise<void> => rm(directory, { recursive: true, force: true });
    if (!full) {
      const adapter = await openAdapter(directory, checkpoint, { allowedRoots: [scratch] });
      return { current: { engine: base, adapter }, leave: remove };
    }
    const model = await full.engine.open(await openCheckpoint(directory), { ...full.options, transient: true });
    // What is open stays readable, so the files may go at once.
    await remove();
    return { current: { engine: model, adapter: null }, leave: () => model.close() };
  }

  async function leave(): Promise<void> {
    const before = served;
    served = null;
    await before?.leave();
  }

  return {
    training,
    async current() {
      if (served?.version !== version) {
        await leave();
        served = { version, ...(await serve()) };
      }
      return served.current;
    },
    optimStep(options) {
      version++;
      return training.optimStep(options);
    },
    async restore(directory) {
      await training.restore(directory);
      version++;
    },
    async close() {
      await leave();
      await training.close();
    },
  };
}
