import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { thisProcess } from "../../src/db/process-identity.ts";
import { openScratch } from "../../src/train/scratch.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "preceptor-scratch-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function leftBy(name: string, pid: number): Promise<void> {
  await mkdir(path.join(root, name));
  await writeFile(path.join(root, name, "owner.json"), JSON.stringify({ ...thisProcess(), pid }));
}
/** Of a process that has ended. */
const goneId = (): number => Number(execFileSync(process.execPath, ["-p", "process.pid"], { encoding: "utf8" }));

test("whoever has the root alone removes all that is left; it goes with its process", async () => {
  await leftBy("mine-before", process.pid);
  await mkdir(path.join(root, "half"));
  const scratch = await openScratch(root, { exclusive: true });
  expect(await readdir(root)).toEqual([path.basename(scratch.directory)]);
  await scratch.remove();
  expect(await readdir(root)).toEqual([]);
});

test("beside others only what a process left that is gone", async () => {
  await leftBy("gone", goneId());
  await leftBy("living", process.pid);
  await mkdir(path.join(root, "being-made"));
  const scratch = await openScratch(root, { exclusive: false });
  expect((await readdir(root)).sort()).toEqual(["being-made", "living", path.basename(scratch.directory)].sort());
});
