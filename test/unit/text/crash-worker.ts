import { parentPort } from "node:worker_threads";
import { fail } from "../../../src/errors.ts";
import { createPeer } from "../../../src/thread/peer.ts";

if (!parentPort) throw new Error("started outside a worker");
let calls = 0;
createPeer(parentPort, {
  ready: () => true,
  count: () => ++calls,
  refuse: () => {
    throw fail("invalid_value", "no");
  },
  exit: () => process.exit(3),
  crash: () =>
    new Promise(() =>
      setImmediate(() => {
        throw new Error("uncaught");
      }),
    ),
  hang: () => {
    while (true);
  },
  /** Runs out of memory, as an enormous text might. */
  grow: () => {
    const all: string[][] = [];
    while (true) all.push(Array.from({ length: 1000 }, (_, i) => `${all.length}-${i}`));
  },
});
