import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type CurrentWeights, createCurrentWeights } from "../../src/train/current-weights.ts";

let directory: string;
let events: string[];
let refuse: Error | undefined;
let weights: CurrentWeights<string>;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "preceptor-weights-"));
  events = [];
  refuse = undefined;
  weights = createCurrentWeights({
    directory,
    async save(target) {
      if (refuse) throw refuse;
      events.push(`save ${path.basename(target)}`);
      await mkdir(target);
    },
    async open(target) {
      const name = path.basename(target);
      events.push(`open ${name}`);
      return { value: name, close: async () => void events.push(`close ${name}`) };
    },
  });
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test("nothing is saved before somebody asks, and once for all who ask between two steps", async () => {
  weights.changed();
  const holds = await Promise.all([weights.hold(), weights.hold()]);
  expect(holds.map(({ value }) => value)).toEqual(["weights-1", "weights-1"]);
  for (const { release } of holds) release();
  expect((await weights.hold()).value).toBe("weights-1");
  expect(events).toEqual(["save weights-1", "open weights-1"]);
});

test("what is held stays through a step; the next is opened when it has gone", async () => {
  const first = await weights.hold();
  weights.changed();
  const second = weights.hold();
  await expect.poll(() => events).toContain("save weights-2");
  expect(events).toEqual(["save weights-1", "open weights-1", "save weights-2"]);
  first.release();
  first.release();
  expect((await second).value).toBe("weights-2");
  expect(events.slice(3)).toEqual(["close weights-1", "open weights-2"]);
  expect(await readdir(directory)).toEqual(["weights-2"]);
});

test("what failed is tried again by the next who asks", async () => {
  refuse = new Error("disk full");
  await expect(weights.hold()).rejects.toThrow("disk full");
  refuse = undefined;
  expect((await weights.hold()).value).toBe("weights-2");
});

test("at the end everything is closed and removed, after those who hold it", async () => {
  const held = await weights.hold();
  const closing = weights.close();
  expect(events).not.toContain("close weights-1");
  held.release();
  await closing;
  expect(events).toContain("close weights-1");
  expect(await readdir(directory)).toEqual([]);
});
