import { beforeAll, expect, test } from "vitest";
import { createModelStore, type ModelStore } from "../../src/db/model-store.ts";
import type { NewModel } from "../../src/db/records.ts";
import { describeDatabases } from "./databases.ts";

const model = (id: string, more: Partial<NewModel> = {}): NewModel => ({
  id,
  role: "teacher",
  format: "stratos",
  body: { id, model: "models/qwen3" },
  source: "models/qwen3",
  precision: "fp32",
  device: "cpu",
  weightsHash: "sha256:w",
  tokenizerHash: "sha256:t",
  ...more,
});

describeDatabases("model store", ({ database }) => {
  let store: ModelStore;
  let clock = new Date("2026-01-01T00:00:00.123Z");
  beforeAll(() => {
    store = createModelStore(database().db, () => clock);
  });

  test("a registered model is found with everything it was given", async () => {
    const custom = { system: null, prefix: "<s>\n{solution}", close: "</e>", suffix: "\u0000\ud800 é 🎓" };
    const made = await store.insert(
      model("full", {
        format: custom,
        adapter: "adapters/a",
        adapterHash: "sha256:a",
        contextLength: 4096,
        credential: "HUB",
        tokenizer: "hf:org/name",
        tempered: 0.7,
        pinned: true,
        metadata: { owner: "léa", "\u0000": "\ue000nul" },
      }),
    );
    expect(made).toEqual({
      id: "full",
      roles: ["teacher"],
      version: 1,
      firstVersion: 1,
      source: "models/qwen3",
      adapter: "adapters/a",
      adapterHash: "sha256:a",
      weightsHash: "sha256:w",
      tokenizerHash: "sha256:t",
      precision: "fp32",
      device: "cpu",
      contextLength: 4096,
      credential: "HUB",
      tokenizer: "hf:org/name",
      tempered: 0.7,
      formats: { teacher: custom },
      bodies: { teacher: { id: "full", model: "models/qwen3" } },
      pinned: true,
      metadata: { owner: "léa", "\u0000": "\ue000nul" },
      createdAt: clock,
      updatedAt: clock,
      deletedAt: null,
    });
    expect(await store.find("full")).toEqual(made);
    expect(await store.find("nobody")).toBeUndefined();
    expect(await store.find("full\u0000")).toBeUndefined();
  });

  test("an id in use is not registered twice, not even at the same moment", async () => {
    const answers = await Promise.all([1, 2, 3, 4].map((n) => store.insert(model("once", { source: `models/${n}` }))));
    const [winner, ...others] = answers.filter((answer) => answer !== undefined);
    expect(others).toEqual([]);
    expect(await store.find("once")).toEqual(winner);
  });

  test("a second role joins without a new version and reaches every version of the registration", async () => {
    await store.insert(model("both"));
    await store.addVersion("both", { adapter: "a" });
    const both = await store.addRole("both", "student", { format: "r1", body: { id: "both" } });
    expect(both).toMatchObject({
      version: 2,
      roles: ["teacher", "student"],
      formats: { teacher: "stratos", student: "r1" },
      bodies: { student: { id: "both" } },
    });
    expect((await store.findVersion("both", 1))?.formats).toEqual({ teacher: "stratos", student: "r1" });
    expect(await store.addRole("both", "student", { format: "r1", body: {} })).toBeUndefined();
    expect(await store.addRole("nobody", "student", { format: "r1", body: {} })).toBeUndefined();
  });

  test("a format that looks like JSON stays the string it is", async () => {
    await store.insert(model("json-like", { format: "123", body: "[1]" }));
    expect(await store.find("json-like")).toMatchObject({ formats: { teacher: "123" }, bodies: { teacher: "[1]" } });
  });

  test("versions count up and take over what does not change", async () => {
    const first = await store.insert(model("versions", { contextLength: 512 }));
    clock = new Date(clock.getTime() + 5_000);
    const changed = await store.addVersion("versions", { adapter: "adapters/b", adapterHash: "sha256:b" });
    expect(changed).toMatchObject({
      version: 2,
      adapter: "adapters/b",
      contextLength: 512,
      createdAt: first?.createdAt,
    });
    expect(changed?.updatedAt).toEqual(clock);
    expect(await store.findVersion("versions", 1)).toMatchObject({ adapter: null, createdAt: first?.createdAt });
    expect(await store.findVersion("versions", 2)).toMatchObject({ adapterHash: "sha256:b", createdAt: clock });
    expect(await store.findVersion("versions", 3)).toBeUndefined();
    await Promise.all([3, 4, 5, 6].map((n) => store.addVersion("versions", { adapter: `adapters/${n}` })));
    expect((await store.find("versions"))?.version).toBe(6);
    expect(await store.addVersion("nobody", {})).toBeUndefined();
  });

  test("metadata and the pin are changed in place", async () => {
    await store.insert(model("changing", { metadata: { a: "1" } }));
    expect(await store.setMetadata("changing", { b: "2" })).toMatchObject({ metadata: { b: "2" }, version: 1 });
    expect(await store.setPinned("changing", true)).toMatchObject({ pinned: true, metadata: { b: "2" } });
    expect(await store.setPinned("nobody", true)).toBeUndefined();
    const body = { id: "changing", model: "elsewhere" };
    expect(await store.setBody("changing", "teacher", body)).toMatchObject({ bodies: { teacher: body }, version: 1 });
  });

  test("a deleted model is hidden, its versions stay, its id goes on with the next version", async () => {
    await store.insert(model("phoenix", { source: "models/old" }));
    await store.addVersion("phoenix", { adapter: "a" });
    expect(await store.remove("phoenix")).toBe(true);
    expect(await store.remove("phoenix")).toBe(false);
    expect(await store.find("phoenix")).toBeUndefined();
    expect(await store.find("phoenix", { includeDeleted: true })).toMatchObject({ version: 2 });
    expect(await store.addVersion("phoenix", {})).toBeUndefined();
    expect(await store.addRole("phoenix", "student", { format: "r1", body: {} })).toBeUndefined();
    const anew = await store.insert(model("phoenix", { source: "models/new", role: "student", format: "r1" }));
    expect(anew).toMatchObject({ version: 3, firstVersion: 3, roles: ["student"], deletedAt: null });
    expect(anew?.formats).toEqual({ student: "r1" });
    expect(await store.findVersion("phoenix", 1)).toMatchObject({
      source: "models/old",
      formats: { teacher: "stratos" },
    });
  });

  test("lists page by page, by role, without the deleted", async () => {
    const ids = ["p1", "p2", "p3", "p4", "p5"];
    // All in the same millisecond but the last: the id must break the tie.
    clock = new Date("2027-01-01T00:00:00Z");
    for (const id of ids.slice(0, 4)) await store.insert(model(id));
    clock = new Date("2027-01-01T00:00:01Z");
    await store.insert(model("p5", { role: "student" }));
    await store.remove("p2");
    const newest = await store.list({ limit: 2, order: "desc" });
    expect(newest.rows.map((row) => row.id)).toEqual(["p5", "p4"]);
    expect(newest.hasMore).toBe(true);
    const next = await store.list({ limit: 2, order: "desc", after: "p4" });
    expect(next.rows.map((row) => row.id)).toEqual(["p3", "p1"]);
    const upwards = await store.list({ limit: 10, order: "asc", after: "p1" });
    expect(upwards).toMatchObject({ hasMore: false });
    expect(upwards.rows.map((row) => row.id)).toEqual(["p3", "p4", "p5"]);
    const teachers = await store.list({ limit: 10, order: "asc", after: "p1", role: "teacher" });
    expect(teachers.rows.map((row) => row.id)).toEqual(["p3", "p4"]);
    expect((await store.list({ limit: 10, order: "asc", after: "p2" })).rows[0]?.id).toBe("p3");
    expect(await store.list({ limit: 1, order: "asc", after: "p5" })).toEqual({ rows: [], hasMore: false });
    await expect(store.list({ limit: 1, order: "asc", after: "gone" })).rejects.toMatchObject({
      code: "invalid_value",
      param: "after",
    });
  });
});
