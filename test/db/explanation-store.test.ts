import fc from "fast-check";
import { afterEach, beforeAll, expect, test } from "vitest";
import { createExplanationStore, type ExplanationStore } from "../../src/db/explanation-store.ts";
import type { ExplanationRecord, NewExplanation } from "../../src/db/records.ts";
import { explanations } from "../../src/db/schema/explanations.ts";
import { describeDatabases } from "./databases.ts";

const USAGE = { prompt_tokens: 7, completion_tokens: 3, cached_tokens: 0, scored_tokens: 9_007_199_254_740_991 };

const explanation = (id: string, more: Partial<NewExplanation> = {}): NewExplanation => ({
  id,
  status: "in_progress",
  teacherId: "teacher",
  teacherVersion: 1,
  question: "2 + 2?",
  solution: "4",
  sampling: { temperature: 0.7, seed: 4_294_967_295 },
  ...more,
});

describeDatabases("explanation store", ({ database }) => {
  let store: ExplanationStore;
  let clock = new Date("2026-01-01T00:00:00.001Z");
  beforeAll(() => {
    store = createExplanationStore(database().db, () => clock);
  });
  afterEach(async () => {
    await database().db.delete(explanations);
  });

  test("what is inserted comes back, defaults filled in", async () => {
    const made = await store.insert(explanation("e1"));
    expect(made).toEqual({
      id: "e1",
      createdAt: clock,
      updatedAt: clock,
      status: "in_progress",
      teacherId: "teacher",
      teacherVersion: 1,
      studentId: null,
      teacherCheckpoint: null,
      studentVersion: null,
      studentCheckpoint: null,
      question: "2 + 2?",
      solution: "4",
      choices: [],
      best: null,
      usage: { prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, scored_tokens: 0 },
      sampling: { temperature: 0.7, seed: 4_294_967_295 },
      rankBy: null,
      prompt: null,
      error: null,
      metadata: {},
    } satisfies ExplanationRecord);
    expect(await store.find("e1")).toEqual(made);
    expect(await store.find("\u0000")).toBeUndefined();
  });

  test("any text and any number survives: NUL, lone surrogates, the escape itself, extremes", async () => {
    const text = "\u0000 \ud800 \udc00\ud800 \ue000 \ue0000000 \\u0000 \u2028 🎓 e\u0301 '\"$1; \x07\r\n\uffff";
    const numbers = [Number.MAX_VALUE, Number.MIN_VALUE, 2 ** 53 - 1, -1.5e-300, 0.1, 1e21, -0.30000000000000004];
    const all = explanation("hard", {
      question: text,
      solution: text,
      prompt: text,
      choices: [{ index: 0, explanation: text, finish_reason: "stop", score: { numbers, [text]: null } }],
      best: 0,
      usage: USAGE,
      rankBy: { z: 1, a: [text] },
      metadata: { [text]: text },
    });
    await store.insert(all);
    const found = await store.find("hard");
    expect(found).toMatchObject(all);
    expect(Object.keys(found?.rankBy ?? {})).toEqual(["z", "a"]);
    const { rows } = await store.list({ limit: 5, order: "asc", metadata: { [text]: text } });
    expect(rows.map((row) => row.id)).toEqual(["hard"]);
  });

  test("arbitrary strings survive (property)", async () => {
    let n = 0;
    const unit = fc.string({ unit: "binary", maxLength: 40 });
    const raw = fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 }).map((u) => String.fromCharCode(...u));
    await fc.assert(
      fc.asyncProperty(fc.oneof(unit, raw), async (text) => {
        const made = await store.insert(explanation(`p${n++}`, { question: text, sampling: { text } }));
        expect(await store.find(made.id)).toMatchObject({ question: text, sampling: { text } });
      }),
      { numRuns: 60 },
    );
  });

  test("a long text is stored whole", async () => {
    const question = "Why? ".repeat(400_000);
    await store.insert(explanation("long", { question }));
    expect((await store.find("long"))?.question === question).toBe(true);
  });

  test("of completion and cancellation the first wins; a final state stays", async () => {
    await store.insert(explanation("race", { status: "queued" }));
    clock = new Date(clock.getTime() + 1_000);
    expect(await store.update("race", { status: "in_progress" }, ["queued"])).toMatchObject({ updatedAt: clock });
    const choices = [{ index: 0, explanation: "because", finish_reason: "stop" as const }];
    const answers = await Promise.all([
      store.update("race", { status: "completed", choices, best: 0, usage: USAGE }),
      store.update("race", { status: "cancelled" }),
    ]);
    expect(answers.filter((answer) => answer !== undefined)).toHaveLength(1);
    const final = await store.find("race");
    expect(await store.update("race", { status: "failed" })).toBeUndefined();
    expect(await store.find("race")).toEqual(final);
    expect(await store.update("nobody", { status: "failed" })).toBeUndefined();
  });

  test("a state that does not exist is refused", async () => {
    const insert = store.insert(explanation("odd", { status: "sleeping" as "queued", question: "my secret question" }));
    await expect(insert).rejects.toThrow(/23514/);
    // What ends up in the log must not hold users' texts.
    await expect(insert).rejects.not.toThrow(/secret/);
  });

  test("removing removes", async () => {
    await store.insert(explanation("gone"));
    expect(await store.remove("gone")).toBe(true);
    expect(await store.remove("gone")).toBe(false);
    expect(await store.find("gone")).toBeUndefined();
  });

  test("lists page through everything once, filtered", async () => {
    for (let i = 0; i < 23; i++) {
      clock = new Date(Date.UTC(2026, 1, 1) + Math.floor(i / 4));
      await store.insert(
        explanation(`l${String((i * 7) % 23).padStart(2, "0")}`, {
          teacherId: i % 2 ? "odd" : "even",
          status: i % 3 ? "completed" : "in_progress",
          metadata: { third: String(i % 3), run: "1" },
        }),
      );
    }
    for (const order of ["asc", "desc"] as const) {
      const seen: string[] = [];
      for (let after: string | undefined; ; after = seen.at(-1)) {
        const { rows, hasMore } = await store.list({ limit: 5, order, after });
        seen.push(...rows.map((row) => row.id));
        if (!hasMore) break;
        expect(rows).toHaveLength(5);
      }
      expect(new Set(seen).size).toBe(23);
      expect(seen).toHaveLength(23);
    }
    const count = async (filter: object) => (await store.list({ limit: 100, order: "asc", ...filter })).rows.length;
    expect(await count({ teacher: "odd" })).toBe(11);
    expect(await count({ status: "completed" })).toBe(15);
    expect(await count({ teacher: "odd", status: "completed" })).toBe(7);
    expect(await count({ metadata: { third: "2", run: "1" } })).toBe(7);
    expect(await count({ metadata: { third: "2", run: "2" } })).toBe(0);
    await expect(store.list({ limit: 5, order: "asc", after: "nobody" })).rejects.toMatchObject({ param: "after" });
  });

  test("what a stopped server left unfinished fails, the rest is left alone", async () => {
    clock = new Date("2026-03-01T00:00:00Z");
    await store.insert(explanation("abandoned"));
    await store.insert(explanation("waiting", { status: "queued" }));
    await store.insert(explanation("touched"));
    await store.insert(explanation("done", { status: "completed" }));
    clock = new Date("2026-03-01T00:10:00Z");
    await store.touch(["touched", "done"]);
    await store.touch([]);
    const ids = async (exclusive: boolean) => (await store.listInterrupted({ exclusive })).map(({ id }) => id);
    expect(await ids(false)).toEqual(["abandoned", "waiting"]);
    expect(await ids(true)).toEqual(expect.arrayContaining(["abandoned", "waiting", "touched"]));
    expect(await ids(true)).not.toContain("done");
    expect(await store.find("done")).toMatchObject({ status: "completed", error: null });
  });
});
