import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { allSettledOrThrow, createLimiter, mapLimited } from "../../src/concurrency.ts";
import { within } from "../../src/within.ts";

test("mapLimited keeps the order and never has more under way than its limit", async () => {
  let underWay = 0;
  let most = 0;
  const delays = [30, 5, 20, 1, 10, 2];
  const results = await mapLimited(delays, 3, async (ms, i) => {
    most = Math.max(most, ++underWay);
    await sleep(ms);
    underWay--;
    return i * 10;
  });
  expect(results).toEqual([0, 10, 20, 30, 40, 50]);
  expect(most).toBe(3);
  expect(await mapLimited([], 3, async () => 1)).toEqual([]);
});

test("a failure stops what has not begun, and is thrown when nothing is under way any more", async () => {
  const begun: number[] = [];
  let ended = 0;
  const failing = mapLimited([0, 1, 2, 3, 4], 2, async (item) => {
    begun.push(item);
    if (item === 0) throw new Error("first");
    await sleep(20);
    ended++;
  });
  await expect(failing).rejects.toThrow("first");
  expect(begun).toEqual([0, 1]);
  expect(ended).toBe(1);
});

test("allSettledOrThrow is Promise.all that waits for the others before it throws", async () => {
  expect(await allSettledOrThrow([1, Promise.resolve("two")])).toEqual([1, "two"]);
  let other = false;
  const slow = sleep(20).then(() => {
    other = true;
  });
  await expect(allSettledOrThrow([slow, Promise.reject(new Error("now"))])).rejects.toThrow("now");
  expect(other).toBe(true);
});

test("a limiter hands places on in the order of asking, after failures too", async () => {
  const limited = createLimiter(2);
  const log: string[] = [];
  const run = (name: string, ms: number, broken = false) =>
    limited(async () => {
      log.push(`+${name}`);
      await sleep(ms);
      log.push(`-${name}`);
      if (broken) throw new Error(name);
      return name;
    });
  const all = await Promise.allSettled([run("a", 10, true), run("b", 40), run("c", 5), run("d", 1)]);
  expect(all.map((r) => r.status)).toEqual(["rejected", "fulfilled", "fulfilled", "fulfilled"]);
  expect(log).toEqual(["+a", "+b", "-a", "+c", "-c", "+d", "-d", "-b"]);
  expect(await run("e", 1)).toBe("e");
});

test("within: the value, nothing when it takes too long, cancelled when told so", async () => {
  expect(await within(Promise.resolve(7), 1000)).toBe(7);
  expect(await within(sleep(1000, 7, { ref: false }), 5)).toBeUndefined();
  await expect(within(Promise.reject(new Error("own")), 1000)).rejects.toThrow("own");
  const controller = new AbortController();
  const waiting = within(new Promise(() => undefined), 10_000, controller.signal);
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
  await expect(within(new Promise(() => undefined), 10_000, controller.signal)).rejects.toMatchObject({
    code: "cancelled",
  });
});
