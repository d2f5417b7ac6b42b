import { fileURLToPath } from "node:url";
import { type PeerQuestion, type RLT_STEP, type RltStepFigures, rltStepFigures } from "../rlt-step.ts";
import { reasonOf, runPeer } from "./child.ts";

const SCRIPT = fileURLToPath(new URL("./trl_reference.py", import.meta.url));

/** With the numbers of RLT_STEP. */
export interface TrlRun extends Record<keyof typeof RLT_STEP, number> {
  directory: string;
  threads: number;
  rank: number;
  alpha: number;
  questions: readonly PeerQuestion[];
  print: (line: string) => void;
}

/** TRL on the same directory; `null`, with a line that says why, where Python lacks it or it fails. */
export async function measureTrl({ print, ...request }: TrlRun): Promise<RltStepFigures | null> {
  const python = process.env.PRECEPTOR_BENCH_PYTHON || "python3";
  try {
    return rltStepFigures.parse(await runPeer(python, [SCRIPT, JSON.stringify(request)], { HF_HUB_OFFLINE: "1" }));
  } catch (error) {
    print(`  TRL: not available (${reasonOf(error)})`);
    return null;
  }
}
