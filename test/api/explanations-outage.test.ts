import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createExplanationSchema } from "../../src/api/explanations/schemas.ts";
import { createExplanationService, type ExplanationService } from "../../src/api/explanations/service.ts";
import type { Caller } from "../../src/caller.ts";
import type { Database } from "../../src/db/database.ts";
import { createExplanationStore } from "../../src/db/explanation-store.ts";
import { fail } from "../../src/errors.ts";
import { openTestDatabase } from "../db/databases.ts";
import { createFakeRegistry } from "./fake-registry.ts";
import { createFakeEngine, encodePlain } from "./fakes.ts";

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(async () => {
  await database.close();
});

/** A service whose database cannot be written to for some number of times. */
function serviceWithOutage(times: number): { service: ExplanationService; refused: () => number } {
  const store = createExplanationStore(database.db);
  let refused = 0;
  const service = createExplanationService({
    registry: createFakeRegistry({
      teacher: {
        engine: createFakeEngine({ contextLength: 8192, script: () => encodePlain("Add.<|end_of_explanation|>") }),
      },
    }),
    store: {
      ...store,
      async update(id, changes, from) {
        // The row of an explanation in the background is marked as begun first; the outage is at the end.
        if (changes.choices !== undefined && refused < times) {
          refused++;
          throw fail("database_unavailable", "the database does not answer at the moment");
        }
        return store.update(id, changes, from);
      },
    },
    now: () => new Date(),
    random: Math.random,
    log: { error: () => undefined },
  });
  return { service, refused: () => refused };
}

const request = (more: object = {}) =>
  createExplanationSchema.parse({ teacher: "teacher", question: "What is 2+3?", solution: "5", ...more });
const caller: Caller = { client: "me", priority: "interactive", signal: new AbortController().signal };

test("a finished explanation outlives a database that is away for a moment", async () => {
  const { service, refused } = serviceWithOutage(2);
  const made = await service.create(request(), caller);
  expect(refused()).toBe(2);
  expect(made).toMatchObject({ status: "completed", choices: [{ explanation: "Add." }] });
  expect(await service.get(made.id)).toEqual(made);
});

test("so does one in the background", async () => {
  const { service, refused } = serviceWithOutage(1);
  const { id } = await service.create(request({ background: true }), caller);
  while ((await service.get(id)).status !== "completed") await sleep(20);
  expect(refused()).toBe(1);
  expect((await service.get(id)).choices[0]?.explanation).toBe("Add.");
});

test("a server that stops does not wait for the database", async () => {
  const { service, refused } = serviceWithOutage(Number.POSITIVE_INFINITY);
  const lost = service.create(request(), caller).catch((error: unknown) => error);
  while (refused() === 0) await sleep(5);
  const begin = performance.now();
  await service.close();
  expect(performance.now() - begin).toBeLessThan(200);
  expect(await lost).toMatchObject({ code: "database_unavailable" });
});
