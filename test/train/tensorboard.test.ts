import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { crc32c, openEventsFile } from "../../src/train/tensorboard.ts";

let folder: string | undefined;
afterEach(async () => {
  if (folder) await rm(folder, { recursive: true });
});

test("the check is Castagnoli's (RFC 3720, B.4)", () => {
  expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
});

test("records are framed, and hold step, names and values", async () => {
  folder = await mkdtemp(path.join(tmpdir(), "preceptor-events-"));
  const events = await openEventsFile(folder, 2, () => 1000.5);
  await events.append(3, { reward: -1.5, "completions/mean_length": 20 });
  const [name] = await readdir(folder);
  expect(name).toMatch(/^events\.out\.tfevents\.1000\./);
  const bytes = await readFile(path.join(folder, name!));
  const records: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    records.push(bytes.subarray(at + 12, at + 12 + length));
    at += length + 16;
  }
  expect(records.length).toBe(3);
  expect(records[0]!.includes("brain.Event:2")).toBe(true);
  const [, , last] = records;
  expect(last!.readDoubleLE(1)).toBe(1000.5);
  // Field 2, a varint: the step.
  expect([...last!.subarray(9, 11)]).toEqual([0x10, 3]);
  const value = last!.indexOf("reward") + "reward".length;
  expect(last![value]).toBe(0x15);
  expect(last!.readFloatLE(value + 1)).toBe(-1.5);
  expect(last!.includes("completions/mean_length")).toBe(true);
});
