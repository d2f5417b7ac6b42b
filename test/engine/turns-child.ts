import { parentPort, workerData } from "node:worker_threads";
import { type Member, takeTurns } from "../../src/engine/onnx/turns.ts";

/** Takes its turn and says so; with `die` it ends in the middle of it. */
const { member, die } = workerData as { member: Member; die: boolean };
takeTurns(member)(() => {
  parentPort?.postMessage("mine");
  if (die) process.exit(0);
});
parentPort?.postMessage("given back");
