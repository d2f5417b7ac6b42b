import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { announceFolder, settleFolder, sweepFolders } from "../../src/train/checkpoint-folders.ts";
import { createCheckpointStore } from "../../src/train/checkpoint-store.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "preceptor-folders-"));
});
afterEach(() => rm(root, { recursive: true }));

const HOUR_MS = 3_600_000;
const rows: Record<string, { deletedAt: Date | null }> = {
  ckpt_kept: { deletedAt: null },
  ckpt_gone: { deletedAt: new Date() },
};
const findCheckpoint = async (id: string) => rows[id] as never;
const folder = async (name: string): Promise<void> => {
  await mkdir(path.join(root, name));
  await writeFile(path.join(root, name, "adapter_model.safetensors"), "weights");
};

test("what a kill left without a row, half deleted or half written goes; what another database may know stays", async () => {
  for (const name of ["ckpt_kept", "ckpt_gone", "ckpt_orphan", "ckpt_unknown", ".ckpt_half.1-2.tmp"])
    await folder(name);
  for (const id of ["ckpt_kept", "ckpt_orphan", "ckpt_never"]) await announceFolder(root, id);
  const gone = await sweepFolders(root, { findCheckpoint, exclusive: true, now: Date.now() });
  expect(gone.sort()).toEqual([".ckpt_half.1-2.tmp", "ckpt_gone", "ckpt_orphan"]);
  expect((await readdir(root)).sort()).toEqual(["ckpt_kept", "ckpt_unknown"]);
});

test("where others may be at work, what is young stays", async () => {
  for (const name of ["ckpt_orphan", "ckpt_half.1.tmp"]) await folder(name);
  await announceFolder(root, "ckpt_orphan");
  const shared = { findCheckpoint, exclusive: false };
  expect(await sweepFolders(root, { ...shared, now: Date.now() })).toEqual([]);
  expect(await sweepFolders(root, { ...shared, now: Date.now() + 2 * HOUR_MS })).toHaveLength(2);
  expect(await readdir(root)).toEqual([]);
});

test("a folder that does not exist yet has nothing to sweep", async () => {
  const none = path.join(root, "none");
  expect(await sweepFolders(none, { findCheckpoint, exclusive: true, now: Date.now() })).toEqual([]);
  await announceFolder(none, "ckpt_1");
  await settleFolder(none, "ckpt_1");
  expect(await readdir(none)).toEqual([]);
});

test("a session's checkpoint whose row was never written is one of those", async () => {
  const store = createCheckpointStore(root, () => Promise.reject(new Error("killed")));
  const write = async (directory: string) => {
    await mkdir(directory);
    await writeFile(path.join(directory, "config.json"), "{}");
    throw new Error("killed");
  };
  await expect(store.create({ kind: "full", config: {}, write })).rejects.toThrow("killed");
  expect(await sweepFolders(root, { findCheckpoint, exclusive: true, now: Date.now() })).toEqual([
    expect.stringMatching(/^ckpt_/),
  ]);
});
