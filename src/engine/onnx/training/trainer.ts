/** `forwardBackward` and `optimStep` on a checkpoint. Everything here blocks the calling thread. */
import { fail } from "../../../errors.ts";
import type { LossName } from "../../../graph/losses.ts";
import { encodeModel } from "../../../graph/proto/onnx.ts";
import { trainingGraph } from "../../../graph/training.ts";
import { maskWindows } from "../../../graph/trunk.ts";
import type { Checkpoint } from "../../../model/checkpoint.ts";
import type { LossConfig, OptimStep, TrainingResult, TrainingSequence } from "../../engine.ts";
import { prefillMask } from "../mask.ts";
import { createRopeTable } from "../rope.ts";
import { createSession, type Session, type SessionOptions, type Tensor, tensor } from "../runtime.ts";
import { adamw } from "./adamw.ts";
import { HEAD_ROWS, type MemoryPlan } from "./memory.ts";
import { type MicroBatch, microBatches, shapeOf } from "./micro-batch.ts";
import type { ParameterSet } from "./parameters.ts";
import { normalised, type TokenRows } from "./token-rows.ts";

export interface Trainer {
  readonly parameters: ParameterSet;
  /** Optimizer steps so far. */
  readonly step: number;
  /** Adds the gradients of this call's loss to those that are there. Throws `empty_loss`, `loss_not_finite`. */
  forwardBackward(
    sequences: readonly TrainingSequence[],
    config: LossConfig,
    signal?: AbortSignal,
  ): Promise<TrainingResult>;
  /** The same numbers without gradients. */
  forward(sequences: readonly TrainingSequence[], config: LossConfig, signal?: AbortSignal): Promise<TrainingResult>;
  /** Uses the gradients up. Returns their norm before clipping. */
  optimStep(options: OptimStep): number;
  /** Other values have been written into the parameters, as they were after so many steps. */
  restored(step: number): void;
  dispose(): void;
}

export interface TrainerDeps {
  checkpoint: Checkpoint;
  parameters: ParameterSet;
  memory: MemoryPlan;
  options: SessionOptions;
  /** Frozen weights in float (widened.ts); null: they are read from their files. */
  widened?: Readonly<Record<string, Tensor>> | null;
}

export function createTrainer({ checkpoint, parameters, memory, options, widened = null }: TrainerDeps): Trainer {
  const { config } = checkpoint;
  const sessions = new Map<string, Session>();
  const ropes = config.ropes.map(createRopeTable);
  const windows = maskWindows(config);
  let feeds: Readonly<Record<string, Tensor>> | null = null;
  let step = 0;

  /** Opened when first needed; frozen weights are mapped, so another session costs its graph only. */
  function session(how: { loss: LossName; sharedPrompt: boolean; recompute: boolean; backward: boolean }): Session {
    const key = JSON.stringify(how);
    const graph = (): Uint8Array =>
      encodeModel(trainingGraph(checkpoint, { ...how, lora: parameters.lora, widened: widened !== null }));
    const known = sessions.get(key) ?? createSession(graph(), { ...options, plain: true });
    sessions.set(key, known);
    return known;
  }

  function layout(
    sequences: readonly TrainingSequence[],
    { members, shared: P, length: S }: MicroBatch,
  ): Record<string, Tensor> {
    const N = P + members.length * S;
    const ids = new Int32Array(N);
    const positions = BigInt64Array.from({ length: N }, (_, row) => BigInt(row < P ? row : P + ((row - P) % S)));
    ids.set(sequences[members[0]!]!.ids.subarray(0, P));
    for (const [b, index] of members.entries()) {
      const own = sequences[index]!.ids.subarray(P);
      const start = P + b * S;
      // Padded with itself; nothing looks at later positions.
      ids.fill(own.at(-1)!, start, start + S);
      ids.set(own, start);
    }
    const int64 = (value: number): Tensor => tensor("int64", [1], BigInt64Array.of(BigInt(value)));
    const laidOut: Record<string, Tensor> = {
      ids: tensor("int32", [1, N], ids),
      positions: tensor("int64", [N, 1], positions),
      sequences: int64(members.length),
      length: int64(S),
    };
    for (const [r, table] of ropes.entries()) {
      const { cos, sin, rows } = table.upTo(P + S);
      laidOut[`cos.${r}`] = tensor("float32", [rows, config.headDim / 2], cos);
      laidOut[`sin.${r}`] = tensor("float32", [rows, config.headDim / 2], sin);
    }
    for (const [w, window] of windows.entries()) {
      laidOut[`mask.${w}`] = tensor("float32", [S, P + S], prefillMask({ past: P, length: S, window }));
      if (P > 0) laidOut[`prompt_mask.${w}`] = tensor("float32", [P, P], prefillMask({ past: 0, length: P, window }));
    }
    if (P > 0) laidOut.prompt = int64(P);
    return laidOut;
  }

  /** The tokens of a micro-batch that reach the head, padded to whole chunks with rows that weigh nothing. */
  function headFeeds(
    rows: readonly TokenRows[],
    { members, shared: P, length: S }: MicroBatch,
    { temperature = 1, beta = 0, clipLow = 0, clipHigh = 0 }: LossConfig,
  ): Record<string, Tensor> {
    const count = members.reduce((sum, index) => sum + rows[index]!.positions.length, 0);
    const chunks = Math.max(1, Math.ceil(count / HEAD_ROWS));
    const M = Math.ceil(count / chunks) * chunks;
    const at = new BigInt64Array(M);
    const targets = new Int32Array(M);
    const columns = {
      weight: new Float32Array(M),
      advantage: new Float32Array(M),
      reference: new Float32Array(M),
      old: new Float32Array(M),
    };
    let m = 0;
    for (const [b, index] of members.entries()) {
      const own = rows[index]!;
      for (const [j, position] of own.positions.entries()) {
        // The token at a position is predicted by the row before it.
        const row = position - 1;
        at[m] = BigInt(row < P ? row : P + b * S + (row - P));
        targets[m] = own.targets[j]!;
        for (const name of ["weight", "advantage", "reference", "old"] as const) columns[name][m] = own[name][j]!;
        m++;
      }
    }
    const one = (value: number): Tensor => tensor("float32", [1, 1], Float32Array.of(value));
    return {
      rows: tensor("int64", [M], at),
      targets: tensor("int32", [M, 1], targets),
      ...Object.fromEntries(Object.entries(columns).map(([name, data]) => [name, tensor("float32", [M, 1], data)])),
      chunks: tensor("int64", [1], BigInt64Array.of(BigInt(chunks))),
      inverse_temperature: one(1 / temperature),
      beta: one(beta),
      lowest: one(1 - clipLow),
      highest: one(1 + clipHigh),
    };
  }

  async function run(
    sequences: readonly TrainingSequence[],
    lossConfig: LossConfig,
    backward: boolean,
    signal: AbortSignal | undefined,
  ): Promise<TrainingResult> {
    const rows = normalised(sequences, lossConfig);
    const logprobs = sequences.map(({ ids }) => new Float32Array(ids.length).fill(Number.NaN));
    let loss = 0;
    feeds ??= parameters.feeds();
    for (const batch of microBatches(sequences, memory)) {
      // A run cannot be interrupted; between two of them whoever gave up is heard.
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted) throw fail("cancelled", "the caller cancelled this request");
      const { members } = batch;
      const shape = shapeOf(batch);
      const how = {
        loss: lossConfig.loss,
        sharedPrompt: batch.shared > 0,
        recompute: backward && memory.recompute(shape),
        backward,
      };
      const inputs = { ...widened, ...feeds, ...layout(sequences, batch), ...headFeeds(rows, batch, lossConfig) };
      const outputs = session(how).run(inputs, ["logprobs", "loss", ...(backward ? parameters.outputs : [])]);
      let m = 0;
      let sum = 0;
      for (const index of members) {
        for (const position of rows[index]!.positions) {
          logprobs[index]![position] = outputs.logprobs![m] as number;
          sum += outputs.loss![m] as number;
          m++;
        }
      }
      if (!Number.isFinite(sum)) throw notFinite(members);
      loss += sum;
      if (backward) parameters.add(outputs);
    }
    return { loss, logprobs };
  }

  return {
    parameters,
    get step() {
      return step;
    },
    async forwardBackward(sequences, lossConfig, signal) {
      try {
        return await run(sequences, lossConfig, true, signal);
      } catch (error) {
        // Part of this call's gradients may be among them.
        for (const { gradient } of parameters.list) gradient.fill(0);
        throw error;
      }
    },
    forward: (sequences, lossConfig, signal) => run(sequences, lossConfig, false, signal),
    optimStep(stepOptions) {
      step++;
      feeds = null;
      return adamw(parameters.list, stepOptions, step);
    },
    restored(at) {
      step = at;
      feeds = null;
      for (const { gradient } of parameters.list) gradient.fill(0);
    },
    dispose() {
      for (const open of sessions.values()) open.dispose();
    },
  };
}

function notFinite(members: readonly number[]): Error {
  return fail(
    "loss_not_finite",
    `the loss of sequences ${members.join(", ")} of this call is not a finite number; lower the learning rate or look at their weights and log-probs`,
  );
}
