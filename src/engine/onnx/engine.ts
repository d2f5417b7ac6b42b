import { fail } from "../../errors.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import type { Engine, EngineModel, OpenOptions } from "../engine.ts";
import { CAPABILITIES } from "./capabilities.ts";
import { checkDevice, checkPrecision } from "./device.ts";
import { createModel, type ModelState } from "./model.ts";
import type { Opened, OpenMessage, ReferenceMessage, WorkerState } from "./protocol.ts";
import { startThread } from "./thread.ts";
import { openTraining } from "./training/model.ts";
import { createTurns, type Turns } from "./turns.ts";

/**
 * The embedded engine: one worker thread per loaded base model, onnxruntime-node inside it. This thread only passes
 * messages, so it stays responsive whatever is being computed.
 */
export function createOnnxEngine(deps: {
  /** Where packed copies of weights may be kept between starts. */
  cacheDir: string;
}): Engine {
  const turns = createTurns();
  return {
    name: "onnx",
    capabilities: CAPABILITIES,
    async check({ precision, device }) {
      checkPrecision(precision, device);
      await checkDevice(device);
    },
    open: (checkpoint, options) => openModel(checkpoint, options, deps.cacheDir, turns),
    train: (checkpoint, options) => openTraining(checkpoint, options, turns),
  };
}

async function openModel(
  checkpoint: Checkpoint,
  options: OpenOptions,
  cacheDir: string,
  turns: Turns,
): Promise<EngineModel> {
  const state: ModelState = {
    active: 0,
    waiting: 0,
    scoring: 0,
    computedTokens: 0,
    cachedTokens: 0,
    prefixBytes: 0,
    bytes: 0,
    references: new Map(),
  };
  const { peer, member, exitFlags, close, asError } = startThread(
    new URL("./worker.ts", import.meta.url),
    turns,
    {
      state: (update: WorkerState) => void Object.assign(state, update),
      async reference({ key, sequence }: ReferenceMessage) {
        const next = await state.references.get(key)?.[sequence]?.next();
        return next && !next.done ? next.value : null;
      },
    },
    "model",
  );
  try {
    const message: OpenMessage = { checkpoint, options, cacheDir, exitFlags, member };
    const opened = await peer.call<Opened>("open", message);
    return createModel({
      peer,
      opened,
      state,
      options,
      vocabSize: checkpoint.config.vocabSize,
      close: () => close(UNLOADED),
    });
  } catch (error) {
    await close(UNLOADED);
    throw asError(error);
  }
}

const UNLOADED = fail("engine_failed", "the model was unloaded while this request was under way; send it again");
