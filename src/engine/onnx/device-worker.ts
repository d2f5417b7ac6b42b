import { parentPort } from "node:worker_threads";
import { createGraph } from "../../graph/builder.ts";
import { matmul } from "../../graph/ops/math.ts";
import { encodeModel } from "../../graph/proto/onnx.ts";
import { createPeer } from "../../thread/peer.ts";
import { createSession, tensor } from "./runtime.ts";

/** The thread in which `checkDevice` tries a device: (1, 1) × (1, 1). */

if (!parentPort) throw new Error("device-worker.ts runs as a worker thread");

createPeer(parentPort, {
  probe(device: string): void {
    const g = createGraph("probe");
    const x = g.input("x", "float", [1, 1]);
    const square = matmul(g, x, x);
    g.output(square, [1, 1]);
    const session = createSession(encodeModel(g.build()), { threads: 1, device });
    session.run({ x: tensor("float32", [1, 1], Float32Array.of(2)) }, [square.name]);
    session.dispose();
  },
});
