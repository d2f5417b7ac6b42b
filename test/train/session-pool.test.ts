import { expect, test } from "vitest";
import { deferred } from "../../src/deferred.ts";
import type { TrainingSession } from "../../src/train/session.ts";
import { createSessionPool, SESSION_IDLE_MS, type SessionPool } from "../../src/train/session-pool.ts";

const HOUR = 3_600_000;

function setUp({ budgetBytes = 1000, maxSessions = 2 } = {}) {
  let time = 0;
  const closed: string[] = [];
  const pool: SessionPool<null> = createSessionPool({ budgetBytes, maxSessions, now: () => new Date(time) });
  const add = (id: string, parameters = 1) =>
    pool.add({ id, parameters, facts: null }, async () => {
      const session: Partial<TrainingSession> = { close: async () => void closed.push(id) };
      return session as TrainingSession;
    });
  const pass = (ms: number): void => {
    time += ms;
  };
  return { pool, add, closed, pass };
}

test("after an hour without a call a session is lost, and its memory free after the next look", async () => {
  const { pool, add, closed, pass } = setUp({ maxSessions: 1 });
  expect(SESSION_IDLE_MS).toBe(HOUR);
  await add("sess_a");
  pass(HOUR - 1);
  await pool.use("sess_a", async () => undefined);
  pass(HOUR - 1);
  expect(pool.list()).toHaveLength(1);
  await pool.sweep();
  expect(closed).toEqual([]);
  pass(1);
  expect(() => pool.get("sess_a")).toThrow(/60 minutes/);
  await expect(pool.use("sess_a", async () => undefined)).rejects.toMatchObject({ code: "session_lost", status: 404 });
  expect(pool.list()).toEqual([]);
  await pool.sweep();
  expect(closed).toEqual(["sess_a"]);
  await add("sess_b");
});

test("a call that takes longer than an hour keeps its session", async () => {
  const { pool, add, closed, pass } = setUp();
  await add("sess_a");
  const work = deferred<string>();
  const call = pool.use("sess_a", () => work.promise);
  pass(2 * HOUR);
  await pool.sweep();
  work.resolve("done");
  expect(await call).toBe("done");
  expect(closed).toEqual([]);
  expect(pool.get("sess_a").expiresAt).toEqual(new Date(3 * HOUR));
});

test("more than the limit are refused until one has gone", async () => {
  const { pool, add } = setUp();
  await Promise.all([add("sess_a"), add("sess_b")]);
  await expect(add("sess_c")).rejects.toMatchObject({ code: "too_many_sessions", status: 429 });
  await pool.remove("sess_a");
  await add("sess_c");
  await expect(pool.remove("sess_a")).rejects.toMatchObject({ code: "session_lost" });
});

test("sessions together take no more memory than there is; one that failed to open takes none", async () => {
  const { pool, add } = setUp({ budgetBytes: 16 * 10, maxSessions: 9 });
  await expect(add("sess_a", 11)).rejects.toMatchObject({ code: "out_of_memory", message: /11 parameters/ });
  await expect(
    pool.add({ id: "sess_b", parameters: 10, facts: null }, () => Promise.reject(new Error("broken"))),
  ).rejects.toThrow("broken");
  await add("sess_c", 6);
  await expect(add("sess_d", 5)).rejects.toMatchObject({ code: "out_of_memory", message: /other sessions take/ });
  await add("sess_e", 4);
});

test("what is under way when its session ends is told so; at the end all are closed and no new one is opened", async () => {
  const { pool, add, closed } = setUp();
  await add("sess_a");
  await add("sess_b");
  const work = deferred<never>();
  const call = pool.use("sess_a", () => work.promise);
  await pool.remove("sess_a");
  work.reject(new Error("the thread was closed"));
  await expect(call).rejects.toMatchObject({ code: "session_lost" });
  await pool.close();
  expect(closed).toEqual(["sess_a", "sess_b"]);
  await expect(add("sess_c")).rejects.toMatchObject({ code: "draining" });
});
