import { parentPort } from "node:worker_threads";
import { fail } from "../../../src/errors.ts";
import { createPeer, type HandlerContext, Transferred } from "../../../src/thread/peer.ts";

if (!parentPort) throw new Error("started outside a worker");
const state = { aborted: 0, emitted: 0 };
const peer = createPeer(parentPort, {
  add: ({ a, b }: { a: number; b: number }) => a + b,
  refuse: () => {
    throw fail("invalid_value", "no such colour", { param: "colour" });
  },
  move: () => {
    const data = new Float32Array([1, 2, 3]);
    return new Transferred(data, [data.buffer]);
  },
  async count(limit: number, { emit, signal }: HandlerContext) {
    state.emitted = 0;
    for (let i = 0; i < limit && !signal.aborted; i++) {
      state.emitted++;
      await emit(i);
    }
    if (signal.aborted) state.aborted++;
  },
  askBack: (question: string) => peer.call("answer", question),
  wait: (_: unknown, { signal }: HandlerContext) =>
    new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(fail("cancelled", "stopped")))),
  state: () => state,
});
