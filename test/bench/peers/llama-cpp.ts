import path from "node:path";
import { fileURLToPath } from "node:url";
import { reasonOf, runPeer } from "./child.ts";
import { figuresOf, type PeerFigures, type PeerRun, printFigures } from "./figures.ts";
import { installNodeLlamaCpp } from "./node-llama-cpp.ts";

const CHILD = fileURLToPath(new URL("./llama-cpp-child.ts", import.meta.url));

export interface LlamaCppRun extends PeerRun {
  gguf: string;
  /** Default: llama.cpp and the file's name. */
  name?: string;
}

/** llama.cpp on a GGUF; `null`, with a line that says why, where it cannot be had or fails. */
export async function measureLlamaCpp(run: LlamaCppRun): Promise<PeerFigures | null> {
  const { gguf, threads, print, name = `llama.cpp ${path.basename(gguf, ".gguf")}` } = run;
  try {
    const library = await installNodeLlamaCpp(print);
    const request = JSON.stringify({ library, gguf: path.resolve(gguf), threads });
    // llama.cpp computes with a pool thread of Node's and one thread less of its own, which wait for each other at
    // every node of the graph, spinning. With a pool of several, Linux puts two of them on one core of two for whole
    // milliseconds: decoding was 3 times slower. With one it is as fast as a C program over the same library.
    const env = { UV_THREADPOOL_SIZE: "1" };
    const figures = figuresOf(name, await runPeer(process.execPath, ["--import", "tsx", CHILD, request], env));
    printFigures(figures, run);
    return figures;
  } catch (error) {
    print(`llama.cpp: not available (${reasonOf(error)})`);
    return null;
  }
}
