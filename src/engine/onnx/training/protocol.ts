import type { Checkpoint } from "../../../model/checkpoint.ts";
import type { LossConfig, TrainingSequence, TrainOptions } from "../../engine.ts";
import type { Member } from "../turns.ts";

/** What crosses between the proxy (`model.ts`) and the training thread. open → trainable parameters; train → TrainingResult. */
export interface OpenTraining {
  checkpoint: Checkpoint;
  options: TrainOptions;
  exitFlags: Int32Array;
  member: Member;
}

export interface TrainMessage {
  sequences: readonly TrainingSequence[];
  config: LossConfig;
  backward: boolean;
}

export interface SaveMessage {
  directory: string;
  state: boolean;
}
