import { fileURLToPath } from "node:url";
import { type TrainFigures, type TrainSettings, trainFigures } from "../train.ts";
import { reasonOf, runPeer } from "./child.ts";

const SCRIPT = fileURLToPath(new URL("./peft_reference.py", import.meta.url));

export interface PeftRun extends TrainSettings {
  rank: number;
  alpha: number;
  print: (line: string) => void;
}

/** PEFT on the same directory; `null`, with a line that says why, where Python lacks it or it fails. */
export async function measurePeft({ print, ...request }: PeftRun): Promise<TrainFigures | null> {
  const python = process.env.PRECEPTOR_BENCH_PYTHON || "python3";
  try {
    return trainFigures.parse(await runPeer(python, [SCRIPT, JSON.stringify(request)], { HF_HUB_OFFLINE: "1" }));
  } catch (error) {
    print(`  PEFT: not available (${reasonOf(error)})`);
    return null;
  }
}
