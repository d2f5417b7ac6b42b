import { parentPort, workerData } from "node:worker_threads";
import type { BandwidthRequest } from "./read-bandwidth.ts";

const { threads, bytes, rounds, barrier } = workerData as BandwidthRequest;
// Not zero: pages never written to are all the same page of zeros.
const [left, right] = [Buffer.alloc(bytes / 2, 1), Buffer.alloc(bytes / 2, 1)];

parentPort?.postMessage(Array.from({ length: rounds }, (_, round) => compareTogether((round + 1) * threads)));

function compareTogether(arrivals: number): readonly [bigint, bigint] {
  Atomics.add(barrier, 0, 1);
  Atomics.notify(barrier, 0);
  for (let seen = Atomics.load(barrier, 0); seen < arrivals; seen = Atomics.load(barrier, 0)) {
    Atomics.wait(barrier, 0, seen);
  }
  const begin = process.hrtime.bigint();
  if (!left.equals(right)) throw new Error("two equal buffers differ");
  return [begin, process.hrtime.bigint()];
}
