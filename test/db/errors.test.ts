import { expect, test } from "vitest";
import { guarded, mapDatabaseError, uniqueViolation } from "../../src/db/errors.ts";
import { models } from "../../src/db/schema/models.ts";
import { fail } from "../../src/errors.ts";
import { describeDatabases } from "./databases.ts";

test("what a database that is away throws becomes database_unavailable, in any wrapping", () => {
  for (const code of [
    "ECONNREFUSED",
    "CONNECT_TIMEOUT",
    "CONNECTION_CLOSED",
    "57P01",
    "08006",
    "53300",
    "28P01",
    "40P01",
  ]) {
    const driver = Object.assign(new Error("password=hunter2"), { code });
    const mapped = mapDatabaseError(new Error("Failed query: select", { cause: driver }));
    expect(mapped, code).toMatchObject({ code: "database_unavailable", status: 503, retryAfterSeconds: 2 });
    expect(mapped.message).not.toContain("hunter2");
  }
});

test("our own errors pass, bugs stay bugs", () => {
  const ours = fail("not_found", "no such thing");
  expect(mapDatabaseError(ours)).toBe(ours);
  const bug = mapDatabaseError(
    new Error("Failed query: … params: secret", { cause: Object.assign(new Error("no column x"), { code: "42703" }) }),
  );
  expect(bug.message).toBe("database 42703: no column x");
  expect(bug).not.toHaveProperty("status");
  expect(mapDatabaseError("odd").message).toContain("odd");
});

test("a query that never answers is given up", async () => {
  await expect(guarded(new Promise(() => undefined), 20)).rejects.toMatchObject({ code: "database_unavailable" });
});

describeDatabases("unique violations", ({ database }) => {
  test("name their constraint", async () => {
    const at = new Date();
    const row = { id: "m", version: 1, firstVersion: 1, metadata: {}, createdAt: at, updatedAt: at };
    const { db } = database();
    await guarded(db.insert(models).values(row));
    const error: unknown = await guarded(db.insert(models).values(row)).catch((reason: unknown) => reason);
    expect(uniqueViolation(error)).toEqual({ constraint: "models_pkey" });
    expect(uniqueViolation(new Error("other"))).toBeUndefined();
  });
});
