import { fail, PreceptorError } from "../../errors.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import { createPeer } from "../../thread/peer.ts";
import { spawnWorker } from "../../thread/spawn.ts";
import type { Engine, EngineModel, OpenOptions } from "../engine.ts";
import { CAPABILITIES } from "./capabilities.ts";
import { checkDevice, checkPrecision } from "./device.ts";
import { createExitFlags } from "./exit-guard.ts";
import { createModel, type ModelState } from "./model.ts";
import type { Opened, OpenMessage, ReferenceMessage, WorkerState } from "./protocol.ts";
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
  const { flags, release } = createExitFlags();
  const member = turns.member();
  const worker = spawnWorker(new URL("./worker.ts", import.meta.url));
  // Before the peer's own listeners, so that what callers see is this error and not a bare exit code.
  worker.on("error", (cause) => peer.fail(died(cause)));
  const exited = new Promise<void>((resolve) => {
    worker.on("exit", () => {
      peer.fail(died(undefined));
      release();
      turns.leave(member);
      resolve();
    });
  });
  const peer = createPeer(worker, {
    state: (update: WorkerState) => void Object.assign(state, update),
    async reference({ key, sequence }: ReferenceMessage) {
      const next = await state.references.get(key)?.[sequence]?.next();
      return next && !next.done ? next.value : null;
    },
  });
  /** The thread ends itself: terminating it in the middle of a computation would abort the process. */
  const stop = (): void => void peer.call("close", null).catch(() => undefined);
  try {
    const message: OpenMessage = { checkpoint, options, cacheDir, exitFlags: flags, member };
    const opened = await peer.call<Opened>("open", message);
    return createModel({
      peer,
      opened,
      state,
      options,
      vocabSize: checkpoint.config.vocabSize,
      async close() {
        stop();
        peer.fail(fail("engine_failed", "the model was unloaded while this request was under way; send it again"));
        await exited;
      },
    });
  } catch (error) {
    stop();
    await exited;
    throw error instanceof PreceptorError ? error : died(error);
  }
}

function died(cause: unknown): PreceptorError {
  return fail("engine_failed", "the thread that computes this model has stopped; send the request again", { cause });
}
