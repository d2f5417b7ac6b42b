/** A training session: weights that learn, and sampling and scoring with them as they are at that moment. */
import { mkdir, rm } from "node:fs/promises";
import { linked } from "../abort.ts";
import type {
  Engine,
  EngineModel,
  LogprobsRequest,
  LogprobsResult,
  OpenOptions,
  OptimStep,
  SampleEvent,
  SampleRequest,
  Trainable,
  TrainingModel,
  TrainingRequest,
  TrainingResult,
} from "../engine/engine.ts";
import type { Placement } from "../engine/placement.ts";
import { fail } from "../errors.ts";
import { openAdapter } from "../model/adapter.ts";
import type { AdapterFiles, Checkpoint } from "../model/checkpoint.ts";
import { openCheckpoint } from "../model/open.ts";
import { createCurrentWeights } from "./current-weights.ts";

export interface TrainingSession {
  readonly trainableParameters: number;
  /** Optimizer steps so far. */
  readonly step: number;
  readonly vocabSize: number;
  readonly contextLength: number;
  /** Adds gradients to those that are there. Throws `empty_loss`, `loss_not_finite`, `cancelled`. */
  forwardBackward(request: TrainingRequest): Promise<TrainingResult>;
  /** The same numbers without gradients. */
  forward(request: TrainingRequest): Promise<TrainingResult>;
  /** `gradNorm`: before clipping. */
  optimStep(options: OptimStep): Promise<{ step: number; gradNorm: number }>;
  /** Steps that come while it runs do not touch it: it goes on with the weights it began with. */
  sample(request: Omit<SampleRequest, "adapter">): AsyncIterable<SampleEvent>;
  logprobs(request: Omit<LogprobsRequest, "adapter">): Promise<LogprobsResult[]>;
  /** Writes a directory that can be served, complete or not at all; `step`: of the weights in it. */
  save(directory: string, options: { state: boolean }): Promise<{ step: number }>;
  /** Ends what is under way and removes the session's files. */
  close(): Promise<void>;
}

export interface SessionDeps {
  engine: Pick<Engine, "open" | "train">;
  placement: Pick<Placement, "hold">;
}

export interface SessionOptions {
  checkpoint: Checkpoint;
  trainable: Trainable;
  /** How the weights are served: in the precision they are trained in. */
  serving: OpenOptions;
  /** Of its own; it is made, and removed at the end. */
  directory: string;
  /** What a training saved, to go on from with its optimizer's state; null: a new training. */
  resume: string | null;
}

interface Serving {
  model: EngineModel;
  adapter: AdapterFiles | null;
  release(): void;
}

/** Throws as `Engine.train` does. */
export async function openTrainingSession(deps: SessionDeps, options: SessionOptions): Promise<TrainingSession> {
  const { checkpoint, trainable, serving, directory } = options;
  await mkdir(directory, { recursive: true });
  const remove = (): Promise<void> => rm(directory, { recursive: true, force: true });
  const begun = await beginTraining(deps, options).catch(async (error: unknown) => {
    await remove();
    throw error;
  });
  const { training } = begun;
  const served = (trainable.kind === "full" ? serveCheckpoints : serveAdapters)(deps, training, options);
  let { step } = begun;
  /** Calls are done in order, so this is the step of whatever is asked for next. */
  let ordered = step;
  const ending = new AbortController();

  return {
    trainableParameters: training.trainableParameters,
    get step() {
      return step;
    },
    vocabSize: checkpoint.config.vocabSize,
    contextLength: serving.contextLength,
    forwardBackward: (request) => training.forwardBackward(request),
    forward: (request) => training.forward(request),
    async optimStep(stepOptions) {
      ordered++;
      served.changed();
      const done = await training.optimStep(stepOptions);
      step = done.step;
      return done;
    },
    async *sample(request) {
      const { signal, unlink } = linked(request.signal, ending.signal);
      try {
        const { model, adapter, release } = await served.hold(signal);
        try {
          yield* model.sample({ ...request, adapter, signal });
        } finally {
          release();
        }
      } finally {
        unlink();
      }
    },
    async logprobs(request) {
      const { signal, unlink } = linked(request.signal, ending.signal);
      try {
        const { model, adapter, release } = await served.hold(signal);
        try {
          return await model.logprobs({ ...request, adapter, signal });
        } finally {
          release();
        }
      } finally {
        unlink();
      }
    },
    async save(target, { state }) {
      const at = ordered;
      await training.save(target, { state });
      return { step: at };
    },
    async close() {
      ending.abort();
      await training.close();
      await served.close();
      await remove();
    },
  };
}

async function beginTraining(
  { engine }: SessionDeps,
  { checkpoint, trainable, serving: { threads, device }, resume }: SessionOptions,
): Promise<{ training: TrainingModel; step: number }> {
  const training = await engine.train(checkpoint, { trainable, threads, device });
  if (resume === null) return { training, step: 0 };
  try {
    const { step } = await training.restore(resume);
    return { training, step };
  } catch (error) {
    await training.close();
    throw error;
  }
}

interface ServedWeights {
  hold(signal: AbortSignal | undefined): Promise<Serving>;
  changed(): void;
  close(): Promise<void>;
}

/** The base is the one that everybody uses, loaded when needed; only the adapter is the session's own. */
function serveAdapters(
  { placement }: SessionDeps,
  training: TrainingModel,
  { checkpoint, serving, directory }: SessionOptions,
): ServedWeights {
  const adapters = createCurrentWeights<AdapterFiles>({
    directory,
    save: (target) => training.save(target, { state: false }),
    open: async (target) => ({ value: await read(openAdapter(target, checkpoint)), close: async () => undefined }),
  });
  return {
    ...adapters,
    async hold(signal) {
      const { value: adapter, release } = await adapters.hold();
      try {
        const held = await placement.hold(checkpoint, serving, { signal });
        return {
          model: held.model,
          adapter,
          release() {
            held.release();
            release();
          },
        };
      } catch (error) {
        release();
        throw error;
      }
    },
  };
}

/** Every step is a model of its own. */
function serveCheckpoints(
  { engine }: SessionDeps,
  training: TrainingModel,
  { serving, directory }: SessionOptions,
): ServedWeights {
  const models = createCurrentWeights<EngineModel>({
    directory,
    save: (target) => training.save(target, { state: false }),
    async open(target) {
      const model = await engine.open(await read(openCheckpoint(target)), { ...serving, transient: true });
      return { value: model, close: () => model.close() };
    },
  });
  return {
    ...models,
    async hold() {
      const { value: model, release } = await models.hold();
      return { model, adapter: null, release };
    },
  };
}

/** What is wrong with files of our own is no fault of the request. */
async function read<T>(files: Promise<T>): Promise<T> {
  try {
    return await files;
  } catch (cause) {
    throw fail("engine_failed", "the session's current weights could not be served; send the request again", { cause });
  }
}
