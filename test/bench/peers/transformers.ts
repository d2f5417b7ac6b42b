import { fileURLToPath } from "node:url";
import { reasonOf, runPeer } from "./child.ts";
import { figuresOf, PEER_SHAPES, type PeerFigures, type PeerRun, printFigures } from "./figures.ts";

const SCRIPT = fileURLToPath(new URL("./transformers_reference.py", import.meta.url));

export interface TransformersRun extends PeerRun {
  /** A checkpoint directory. */
  directory: string;
  dtype: "float32" | "bfloat16";
}

/** Transformers on the same directory; `null`, with a line that says why, where Python lacks it or it fails. */
export async function measureTransformers(run: TransformersRun): Promise<PeerFigures | null> {
  const { directory, dtype, threads, print } = run;
  const python = process.env.PRECEPTOR_BENCH_PYTHON || "python3";
  const request = JSON.stringify({ directory, dtype, threads, ...PEER_SHAPES });
  try {
    const printed = await runPeer(python, [SCRIPT, request], { HF_HUB_OFFLINE: "1" });
    const figures = figuresOf(`Transformers ${dtype}`, printed);
    printFigures(figures, run);
    return figures;
  } catch (error) {
    print(`Transformers: not available (${reasonOf(error)})`);
    return null;
  }
}
