import { sql } from "drizzle-orm";
import { afterEach, beforeAll, expect, test } from "vitest";
import { createIdempotencyStore, type IdempotencyStore } from "../../src/db/idempotency-store.ts";
import { idempotencyKeys } from "../../src/db/schema/idempotency.ts";
import { describeDatabases } from "./databases.ts";

const OF = { owner: "key_1", key: "k" };
const RESPONSE = { status: 201, body: '{"id":"\u0000 🎓"}', requestHash: "h" };

describeDatabases("idempotency store", ({ database }) => {
  let store: IdempotencyStore;
  beforeAll(() => {
    store = createIdempotencyStore(database().db);
  });
  afterEach(async () => {
    await database().db.delete(idempotencyKeys);
  });

  async function claim(of = OF): Promise<string> {
    const claimed = await store.claim(of, "h");
    if (claimed.state !== "ours") throw new Error(claimed.state);
    return claimed.token;
  }
  const later = (column: "claimed_until" | "expires_at") =>
    database().db.execute(sql`update idempotency_keys set ${sql.identifier(column)} = now() - interval '1 second'`);

  test("of many at once one claims; when it is done the others get its answer", async () => {
    const claims = await Promise.all(Array.from({ length: 8 }, () => store.claim(OF, "h")));
    const [first, ...others] = claims.filter((claimed) => claimed.state === "ours");
    expect(others).toEqual([]);
    expect(claims.filter(({ state }) => state === "under_way")).toHaveLength(7);
    await store.complete(OF, (first as { token: string }).token, RESPONSE);
    expect(await store.claim(OF, "other")).toEqual({ state: "done", response: RESPONSE });
  });

  test("keys of another caller are other keys", async () => {
    await claim();
    await claim({ ...OF, owner: "key_2" });
  });

  test("a key that was released, or whose server was killed, is free; the dead cannot answer any more", async () => {
    await store.release(OF, await claim());
    const dead = await claim();
    await store.renew(OF, dead);
    expect(await store.claim(OF, "h")).toMatchObject({ state: "under_way", requestHash: "h" });
    await later("claimed_until");
    const heir = await claim();
    await store.complete(OF, dead, { ...RESPONSE, body: "late" });
    await store.release(OF, dead);
    await store.complete(OF, heir, RESPONSE);
    expect(await store.claim(OF, "h")).toEqual({ state: "done", response: RESPONSE });
  });

  test("an answer is kept, however long ago its claim ran out, until it is a day old", async () => {
    await store.complete(OF, await claim(), RESPONSE);
    await later("claimed_until");
    await store.sweep({ exclusive: true });
    expect(await store.claim(OF, "h")).toMatchObject({ state: "done" });
    await later("expires_at");
    await claim();
  });

  test("the sweep forgets what is too old, and with the database for itself what was under way", async () => {
    await store.complete(OF, await claim(), RESPONSE);
    await later("expires_at");
    await claim({ ...OF, key: "under way" });
    const kept = async () => (await database().db.select().from(idempotencyKeys)).map(({ key }) => key);
    await store.sweep({ exclusive: false });
    expect(await kept()).toEqual(["under way"]);
    await store.sweep({ exclusive: true });
    expect(await kept()).toEqual([]);
  });
});
