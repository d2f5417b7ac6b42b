import { beforeEach, expect, test } from "vitest";
import { withModelCache } from "../../src/db/model-cache.ts";
import { createModelStore, type ModelStore } from "../../src/db/model-store.ts";
import type { NewModel } from "../../src/db/records.ts";
import { describeDatabases } from "./databases.ts";

const model = (id: string): NewModel => ({
  id,
  role: "teacher",
  format: "stratos",
  body: { id },
  source: "models/qwen3",
  precision: "fp32",
  device: "cpu",
});

describeDatabases("models that are remembered", ({ database }) => {
  let reads: string[];
  let clock: number;
  let mine: ModelStore;
  let theirs: ModelStore;
  let count = 0;
  let id: string;
  beforeEach(async () => {
    reads = [];
    clock = 0;
    id = `remembered-${count++}`;
    theirs = createModelStore(database().db);
    const counted: ModelStore = {
      ...theirs,
      find: (...args) => {
        reads.push("find");
        return theirs.find(...args);
      },
      findVersion: (...args) => {
        reads.push("findVersion");
        return theirs.findVersion(...args);
      },
    };
    mine = withModelCache(counted, { maxAgeMs: 1000, now: () => clock });
    await mine.insert(model(id));
  });

  test("are read once, until they are old", async () => {
    for (let i = 0; i < 3; i++) expect(await mine.find(id)).toMatchObject({ id, version: 1 });
    for (let i = 0; i < 3; i++) expect(await mine.findVersion(id, 1)).toMatchObject({ version: 1 });
    expect(reads).toEqual(["find", "findVersion"]);
    clock = 1000;
    await mine.find(id);
    expect(reads).toEqual(["find", "findVersion", "find"]);
  });

  test("what this process changes is seen at once, what others change after a moment", async () => {
    await mine.find(id);
    await mine.addVersion(id, { adapter: "a" });
    expect(await mine.find(id)).toMatchObject({ version: 2, adapter: "a" });
    await theirs.setMetadata(id, { by: "another" });
    expect((await mine.find(id))?.metadata).toEqual({});
    clock = 1000;
    expect((await mine.find(id))?.metadata).toEqual({ by: "another" });
    await mine.remove(id);
    expect(await mine.find(id)).toBeUndefined();
    expect(await mine.find(id, { includeDeleted: true })).toMatchObject({ id });
  });

  test("what was read while it was changed is not remembered", async () => {
    const reading = mine.find(id);
    await mine.setPinned(id, true);
    await reading;
    expect(await mine.find(id)).toMatchObject({ pinned: true });
  });

  test("what is not there is looked for each time", async () => {
    expect(await mine.find("nobody")).toBeUndefined();
    await theirs.insert(model(`${id}-late`));
    expect(await mine.find(`${id}-late`)).toMatchObject({ id: `${id}-late` });
  });
});
