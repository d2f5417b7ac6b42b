import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { acquireLock } from "../../src/db/lock.ts";
import { thisProcess } from "../../src/db/process-identity.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "preceptor-lock-"));
  path = join(folder, "pglite.lock");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const left = (holder: object): void =>
  writeFileSync(path, JSON.stringify({ ...thisProcess(), token: "old", ...holder }));
const locked = { code: "data_dir_locked" };

test("only one holder at a time", async () => {
  const lock = await acquireLock(path, folder);
  await expect(acquireLock(path, folder)).rejects.toMatchObject(locked);
  await lock.release();
  await (await acquireLock(path, folder)).release();
});

test("a lock of a process that is gone is taken over", async () => {
  // Above Linux's largest possible pid (2^22): never running.
  left({ pid: 4_194_305 });
  const lock = await acquireLock(path, folder);
  await lock.release();
});

test("a pid that now belongs to another process is recognised by its start time", async () => {
  left({ pid: process.pid, started: "1" });
  const mine = await acquireLock(path, folder);
  await mine.release();
  left({ pid: process.ppid, started: "1" });
  await (await acquireLock(path, folder)).release();
});

test("of many that find the same stale lock exactly one gets it", async () => {
  for (let round = 0; round < 5; round++) {
    left({ pid: 4_194_305 });
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => acquireLock(path, folder)));
    const held = results.filter((result) => result.status === "fulfilled");
    expect(held).toHaveLength(1);
    for (const result of results) {
      if (result.status === "rejected") expect(result.reason).toMatchObject(locked);
      else await result.value.release();
    }
  }
});

test("a lock file that a crash left half-written is taken over", async () => {
  writeFileSync(path, '{"pid": 12');
  await (await acquireLock(path, folder)).release();
  writeFileSync(path, "");
  await (await acquireLock(path, folder)).release();
});

test("a holder in another container is respected while it beats, and taken over when it is silent", async () => {
  left({ world: "elsewhere x y", pid: 1 });
  const beating = setInterval(() => utimesSync(path, new Date(), new Date()), 50);
  const refusal = await acquireLock(path, folder, 200).catch((error: unknown) => error);
  clearInterval(beating);
  expect(refusal).toMatchObject(locked);
  expect(String(refusal)).toContain("process 1 on elsewhere");
  const lock = await acquireLock(path, folder, 50);
  expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ pid: process.pid });
  await lock.release();
});

test("a holder beats", async () => {
  const lock = await acquireLock(path, folder, 20);
  const before = statSync(path).mtimeMs;
  await expect.poll(() => statSync(path).mtimeMs).toBeGreaterThan(before);
  await lock.release();
});

test("a lock that was lost is not removed from its new holder", async () => {
  const lost = await acquireLock(path, folder);
  left({ pid: process.ppid, token: "theirs" });
  await lost.release();
  expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ token: "theirs" });
});
