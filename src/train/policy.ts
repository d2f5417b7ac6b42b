/** Weights that learn, and the same weights as something that samples and scores. */
import type { Engine, EngineModel, OpenOptions, OptimStep, TrainingModel } from "../engine/engine.ts";
import { openAdapter } from "../model/adapter.ts";
import type { AdapterFiles, Checkpoint } from "../model/checkpoint.ts";
import { openCheckpoint } from "../model/open.ts";
import { createCurrentWeights } from "./current-weights.ts";

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
  const weights = createCurrentWeights<Current>({
    directory: scratch,
    save: (directory) => training.save(directory, { state: false }),
    async open(directory) {
      if (!full) {
        const adapter = await openAdapter(directory, checkpoint, { allowedRoots: [scratch] });
        return { value: { engine: base, adapter }, close: async () => undefined };
      }
      const engine = await full.engine.open(await openCheckpoint(directory), { ...full.options, transient: true });
      return { value: { engine, adapter: null }, close: () => engine.close() };
    },
  });
  let held: { value: Current; release(): void } | null = null;

  function changed(): void {
    held?.release();
    held = null;
    weights.changed();
  }

  return {
    training,
    async current() {
      held ??= await weights.hold();
      return held.value;
    },
    optimStep(options) {
      changed();
      return training.optimStep(options);
    },
    async restore(directory) {
      await training.restore(directory);
      changed();
    },
    async close() {
      changed();
      await weights.close();
      await training.close();
    },
  };
}
