/** The caller's side of weights that learn. */
import { fail } from "../../../errors.ts";
import type { Checkpoint } from "../../../model/checkpoint.ts";
import type { OptimStep, TrainingModel, TrainingRequest, TrainingResult, TrainOptions } from "../../engine.ts";
import { asEngineError } from "../../engine-error.ts";
import { startThread } from "../thread.ts";
import type { Turns } from "../turns.ts";
import type { OpenTraining, SaveMessage, TrainMessage } from "./protocol.ts";

const CLOSED = fail("engine_failed", "the training was closed while this call was under way");

export async function openTraining(
  checkpoint: Checkpoint,
  options: TrainOptions,
  turns: Turns,
): Promise<TrainingModel> {
  const { peer, member, exitFlags, close, asError } = startThread(
    new URL("./worker.ts", import.meta.url),
    turns,
    {},
    "training",
  );
  /** One call after the other: they share gradients and weights. */
  let last: Promise<unknown> = Promise.resolve();
  async function inTurn<T>(call: () => Promise<T>): Promise<T> {
    const mine = last.then(call, call);
    last = mine.catch(() => undefined);
    try {
      return await mine;
    } catch (error) {
      throw asEngineError(error);
    }
  }
  const train = (request: TrainingRequest, backward: boolean): Promise<TrainingResult> => {
    const { sequences, config, signal } = request;
    if (signal?.aborted) return Promise.reject(fail("cancelled", "the caller cancelled this request"));
    return inTurn(() => peer.call("train", { sequences, config, backward } satisfies TrainMessage, { signal }));
  };
  try {
    const message: OpenTraining = { checkpoint, options, exitFlags, member };
    const trainableParameters = await peer.call<number>("open", message);
    return {
      trainableParameters,
      forwardBackward: (request) => train(request, true),
      forward: (request) => train(request, false),
      optimStep: (step: OptimStep) => inTurn(() => peer.call("step", step)),
      save: (directory, { state }) => inTurn(() => peer.call("save", { directory, state } satisfies SaveMessage)),
      restore: (directory) => inTurn(() => peer.call("restore", directory)),
      close: () => close(CLOSED),
    };
  } catch (error) {
    await close(CLOSED);
    throw asError(error);
  }
}
