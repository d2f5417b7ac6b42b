import { parentPort } from "node:worker_threads";
import { fail } from "../../../errors.ts";
import type { Checkpoint, ModelConfig } from "../../../model/checkpoint.ts";
import { readTensor } from "../../../model/tensor-data.ts";
import { createPeer, type HandlerContext, Transferred } from "../../../thread/peer.ts";
import type { OptimStep, Trainable, TrainingResult } from "../../engine.ts";
import { createComputeGuard } from "../exit-guard.ts";
import { takeTurns } from "../turns.ts";
import { restoreTrained, saveTrained, type TrainedFiles } from "./files.ts";
import { adapterLora, initialLora } from "./lora.ts";
import { defaultBudget, planMemory } from "./memory.ts";
import { fullParameters, loraParameters, type ParameterSet } from "./parameters.ts";
import type { OpenTraining, SaveMessage, TrainMessage } from "./protocol.ts";
import { createTrainer, type Trainer } from "./trainer.ts";
import { wantsWidened, widenedBytes, widenedFeeds } from "./widened.ts";

/** The thread that owns weights that learn: parameters, gradients, optimizer state and the graphs over them. */

if (!parentPort) throw new Error("worker.ts runs as a worker thread");

let opened: { trainer: Trainer; files: TrainedFiles } | undefined;

createPeer(parentPort, { open, train, step, save, restore, close });

function training(): { trainer: Trainer; files: TrainedFiles } {
  if (!opened) throw fail("engine_failed", "nothing is being trained");
  return opened;
}

async function open({ checkpoint, options, exitFlags, member }: OpenTraining): Promise<number> {
  const { trainable, threads, device, batchBytes } = options;
  const parameters = await parametersOf(checkpoint, trainable);
  const budget = batchBytes ?? defaultBudget();
  const widened = parameters.lora && wantsWidened(checkpoint, budget, device) ? await widenedFeeds(checkpoint) : null;
  const trainer = createTrainer({
    checkpoint,
    parameters,
    widened,
    memory: planMemory(checkpoint.config, widened ? budget - widenedBytes(checkpoint) : budget),
    options: { threads, device, guard: createComputeGuard(exitFlags), turn: takeTurns(member) },
  });
  opened = { trainer, files: { checkpoint, trainable, parameters } };
  return parameters.list.reduce((sum, { values }) => sum + values.length, 0);
}

async function parametersOf(checkpoint: Checkpoint, trainable: Trainable): Promise<ParameterSet> {
  const { config }: { config: ModelConfig } = checkpoint;
  if (trainable.kind === "lora") return loraParameters(config, initialLora(config, trainable.lora));
  if (trainable.kind === "adapter") return loraParameters(config, await adapterLora(trainable.adapter));
  const values = new Map<string, Float32Array>();
  for (const [name, location] of Object.entries(checkpoint.tensors)) values.set(name, await readTensor(location));
  return fullParameters(checkpoint, values);
}

async function train({ sequences, config, backward }: TrainMessage, { signal }: HandlerContext): Promise<Transferred> {
  const { trainer } = training();
  const result: TrainingResult = await (backward ? trainer.forwardBackward : trainer.forward)(
    sequences,
    config,
    signal,
  );
  return new Transferred(
    result,
    result.logprobs.map(({ buffer }) => buffer as ArrayBuffer),
  );
}

function step(options: OptimStep): { step: number; gradNorm: number } {
  const { trainer } = training();
  const gradNorm = trainer.optimStep(options);
  return { step: trainer.step, gradNorm };
}

async function save({ directory, state }: SaveMessage): Promise<void> {
  const { trainer, files } = training();
  await saveTrained(files, directory, state ? trainer.step : null);
}

async function restore(directory: string): Promise<{ step: number }> {
  const { trainer, files } = training();
  const step = await restoreTrained(files, directory);
  trainer.restored(step);
  return { step };
}

/** From inside, between two computations; see worker.ts of the engine. */
function close(): void {
  opened?.trainer.dispose();
  process.exit(0);
}
