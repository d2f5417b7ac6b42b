import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { createTurns, takeTurns } from "../../src/engine/onnx/turns.ts";
import { spawnWorker } from "../../src/thread/spawn.ts";

const start = (workerData: object) => {
  const worker = spawnWorker(new URL("./turns-child.ts", import.meta.url), { workerData });
  const said: unknown[] = [];
  worker.on("message", (message) => said.push(message));
  return { worker, said };
};

test("one thread computes at a time, and the other follows", async () => {
  const turns = createTurns();
  const [mine, other] = [turns.member(), turns.member()];
  const lock = mine.lock;
  // This thread's turn, held across an await as a computation would hold it across its run.
  lock[0] = mine.id;
  const { worker, said } = start({ member: other, die: false });
  await once(worker, "online");
  await sleep(300);
  expect(said).toEqual([]);
  turns.leave(mine);
  await once(worker, "exit");
  expect(said).toEqual(["mine", "given back"]);
  expect(takeTurns(mine)(() => "again")).toBe("again");
});

test("a thread that ends in the middle of its turn stops nobody", async () => {
  const turns = createTurns();
  const [mine, other] = [turns.member(), turns.member()];
  const { worker, said } = start({ member: other, die: true });
  await once(worker, "exit");
  expect(said).toEqual(["mine"]);
  turns.leave(other);
  expect(takeTurns(mine)(() => "mine")).toBe("mine");
});

test("an error gives the turn back", () => {
  const member = createTurns().member();
  const turn = takeTurns(member);
  expect(() =>
    turn(() => {
      throw new Error("failed");
    }),
  ).toThrow("failed");
  expect(turn(() => 1)).toBe(1);
});
