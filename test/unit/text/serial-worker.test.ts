import { afterEach, beforeEach, expect, test } from "vitest";
import { createSerialWorker, type SerialWorker } from "../../../src/text/serial-worker.ts";
import { spawnWorker } from "../../../src/thread/spawn.ts";

let serial: SerialWorker;
beforeEach(() => {
  serial = createSerialWorker({
    spawn: () =>
      spawnWorker(new URL("./crash-worker.ts", import.meta.url), { resourceLimits: { maxOldGenerationSizeMb: 40 } }),
  });
});
afterEach(() => serial.close());

const LIMIT_MS = 20_000;
const count = (): Promise<number> => serial.call<number>("count", null, LIMIT_MS);

test("calls reach one thread, in order; a refusal costs nothing", async () => {
  expect(await Promise.all([count(), count()])).toEqual([1, 2]);
  await expect(serial.call("refuse", null, LIMIT_MS)).rejects.toMatchObject({ code: "invalid_value" });
  expect(await count()).toBe(3);
});

test.each([
  ["exit", "out_of_memory"],
  ["crash", "out_of_memory"],
  ["grow", "out_of_memory"],
])("a call that ends the thread (%s) fails alone; what waits goes to a new one", async (method, code) => {
  await count();
  const failed = serial.call(method, null, LIMIT_MS);
  const waiting = count();
  await expect(failed).rejects.toMatchObject({ code });
  expect(await waiting).toBe(1);
});

test("a call that does not end is ended", async () => {
  await count();
  const failed = serial.call("hang", null, 200);
  const waiting = count();
  await expect(failed).rejects.toMatchObject({ code: "invalid_value" });
  expect(await waiting).toBe(1);
});

test("closing rejects what is under way and what waits", async () => {
  await count();
  const outcomes = Promise.allSettled([serial.call("hang", null, LIMIT_MS), count()]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await serial.close();
  for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: { code: "draining" } });
});
