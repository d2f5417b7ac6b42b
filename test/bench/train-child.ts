/**
 * LoRA training steps in a process of their own, on a worker thread as in the server: its memory comes from another heap
 * than the main thread's, and costs more. Run by train.ts; the settings are the argument, the figures the last line.
 */
import { once } from "node:events";
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import type { TrainingSequence } from "../../src/engine/engine.ts";
import { initialLora } from "../../src/engine/onnx/training/lora.ts";
import { defaultBudget, planMemory } from "../../src/engine/onnx/training/memory.ts";
import { loraParameters, type ParameterSet } from "../../src/engine/onnx/training/parameters.ts";
import { createTrainer } from "../../src/engine/onnx/training/trainer.ts";
import { wantsWidened, widenedBytes, widenedFeeds } from "../../src/engine/onnx/training/widened.ts";
import { openCheckpoint } from "../../src/model/open.ts";
import { linearShapes } from "../../src/model/tensors.ts";
import { spawnWorker } from "../../src/thread/spawn.ts";
import { processBytes } from "./process-memory.ts";
import { LORA, type TrainCase, type TrainSettings } from "./train.ts";

const STEP = { learningRate: 1e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, clip: 1 } as const;

/** The same ids as in peft_reference.py: below 256 they are in every vocabulary. */
function sequencesOf({ sequences, prompt, length }: TrainCase): TrainingSequence[] {
  return Array.from({ length: sequences }, (_, b) => {
    const ids = Int32Array.from({ length: prompt + length }, (__, t) =>
      t < prompt ? (t * 31 + 3) % 256 : (t * 31 + b * 7 + 5) % 256,
    );
    return { ids, weights: Float32Array.from(ids, (__, t) => (t >= prompt ? 1 : 0)) };
  });
}

function stopwatch(): { seconds: number; count: number; time<T>(work: () => T): T } {
  const watch = {
    seconds: 0,
    count: 0,
    time<T>(work: () => T): T {
      const started = performance.now();
      try {
        return work();
      } finally {
        watch.seconds += (performance.now() - started) / 1000;
        watch.count++;
      }
    },
  };
  return watch;
}

const resident = (line: "VmRSS" | "VmHWM"): number => processBytes(process.pid, line) ?? Number.NaN;

async function measure({ directory, threads, run }: TrainSettings): Promise<unknown> {
  const checkpoint = await openCheckpoint(directory);
  const { config } = checkpoint;
  const emptyBytes = resident("VmRSS");
  const targets = Object.keys(linearShapes(config));
  const plain = loraParameters(config, initialLora(config, { ...LORA, targets, rsLora: false, seed: 1 }));
  const watches = { native: stopwatch(), feeds: stopwatch(), gradients: stopwatch(), adamw: stopwatch() };
  const parameters: ParameterSet = {
    ...plain,
    feeds: () => watches.feeds.time(() => plain.feeds()),
    add: (outputs) => watches.gradients.time(() => plain.add(outputs)),
  };
  const budget = defaultBudget();
  const widened = wantsWidened(checkpoint, budget, "cpu") ? await widenedFeeds(checkpoint) : null;
  const trainer = createTrainer({
    checkpoint,
    parameters,
    widened,
    memory: planMemory(config, widened ? budget - widenedBytes(checkpoint) : budget),
    options: { threads, device: "cpu", turn: watches.native.time },
  });
  const sequences = sequencesOf(run);
  const loadedBytes = resident("VmRSS");
  let best: { stepSeconds: number; phases: Record<string, number>; runs: number } | undefined;
  // The first one also opens sessions.
  for (let repetition = 0; repetition <= run.repetitions; repetition++) {
    for (const watch of Object.values(watches)) [watch.seconds, watch.count] = [0, 0];
    const started = performance.now();
    await trainer.forwardBackward(sequences, { loss: "cross_entropy" });
    watches.adamw.time(() => trainer.optimStep(STEP));
    const stepSeconds = (performance.now() - started) / 1000;
    if (repetition === 0 || stepSeconds >= (best?.stepSeconds ?? Number.POSITIVE_INFINITY)) continue;
    const phases = Object.fromEntries(Object.entries(watches).map(([name, { seconds }]) => [name, seconds]));
    best = { stepSeconds, phases, runs: watches.native.count };
  }
  trainer.dispose();
  return { ...best, emptyBytes, loadedBytes, peakBytes: resident("VmHWM") };
}

if (isMainThread) {
  const settings = JSON.parse(process.argv[2] ?? "") as TrainSettings;
  const [figures] = await once(spawnWorker(new URL(import.meta.url), { workerData: settings }), "message");
  process.stdout.write(`${JSON.stringify(figures)}\n`);
} else {
  parentPort!.postMessage(await measure(workerData as TrainSettings));
}
