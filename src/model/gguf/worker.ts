/** Converts GGUF files on a thread of its own: reading and dequantising blocks for seconds to minutes. */
import { parentPort } from "node:worker_threads";
import { createPeer, type HandlerContext } from "../../thread/peer.ts";
import { convertGguf } from "./convert.ts";
import type { WeightsProgress } from "./write-weights.ts";

/** Progress is reported at most this often. */
const PROGRESS_INTERVAL_MS = 100;

export interface ConvertParams {
  path: string;
  target: string;
  /** The name the user knows the file by; a hub cache calls it by its hash. */
  label: string;
}

if (!parentPort) throw new Error("gguf/worker.ts must run in a worker thread");

createPeer(parentPort, {
  convert({ path, target, label }: ConvertParams, { emit }: HandlerContext): void {
    let last = 0;
    const report = (progress: WeightsProgress): void => {
      const now = Date.now();
      if (now - last < PROGRESS_INTERVAL_MS && progress.written < progress.total) return;
      last = now;
      void emit(progress);
    };
    convertGguf(path, target, report, label);
  },
});
