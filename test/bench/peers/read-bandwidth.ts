import { once } from "node:events";
import { spawnWorker } from "../../../src/thread/spawn.ts";

/** Twice 256 MiB, far more than any cache of a core complex holds; memory stays moderate. */
const BYTES = 2 ** 29;
/** The first rounds of a fresh thread are slow, and a neighbour may disturb some. */
const ROUNDS = 12;

export interface BandwidthRequest {
  threads: number;
  /** Of each thread. */
  bytes: number;
  rounds: number;
  /** A counter of arrivals: before each round every thread waits for the others. */
  barrier: Int32Array;
}

/** Begin and end of each round, in nanoseconds of the clock that all threads share. */
export type BandwidthRounds = readonly (readonly [begin: bigint, end: bigint])[];

/**
 * Bytes per second that `threads` threads read from memory together: the best of some rounds in which each compares two
 * large equal buffers of its own. The C library's comparison is vectorised and only reads; it comes within a few per
 * cent of a loop of AVX-512 loads in C, where the best reduction of ONNX Runtime stays 15 % below.
 */
export async function readBandwidth(threads: number): Promise<number> {
  const barrier = new Int32Array(new SharedArrayBuffer(4));
  const bytes = Math.floor(BYTES / threads);
  const request: BandwidthRequest = { threads, bytes, rounds: ROUNDS, barrier };
  const workers = Array.from({ length: threads }, () =>
    spawnWorker(new URL("./read-bandwidth-worker.ts", import.meta.url), { workerData: request }),
  );
  const results = await Promise.all(
    workers.map(async (worker) => (await once(worker, "message"))[0] as BandwidthRounds),
  );
  const durations = Array.from({ length: ROUNDS }, (_, round) => {
    const spans = results.map((rounds) => rounds[round]!);
    const begin = spans.reduce((least, [at]) => (at < least ? at : least), spans[0]![0]);
    const end = spans.reduce((most, [, at]) => (at > most ? at : most), spans[0]![1]);
    return Number(end - begin) / 1e9;
  });
  return (bytes * threads) / Math.min(...durations);
}
