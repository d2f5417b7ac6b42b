import { eq } from "drizzle-orm";
import { afterEach, beforeAll, expect, test } from "vitest";
import { openPostgres } from "../../src/db/postgres.ts";
import { jobs } from "../../src/db/schema/jobs.ts";
import { createJobQueue, type JobQueue } from "../../src/jobs/queue.ts";
import type { JobRecord } from "../../src/jobs/records.ts";
import { describeDatabases, describePostgres, SILENT } from "../db/databases.ts";
import { allEvents, empty, leaseOf, newJob, outline, take } from "./fixtures.ts";

describeDatabases("claiming", ({ database }) => {
  let queue: JobQueue;
  beforeAll(() => {
    queue = createJobQueue(database().db);
  });
  afterEach(() => empty(database()));

  const claimOne = (owner = "w", kinds = ["test"]) => queue.claim({ owner, kinds, leaseMs: 60_000 });

  test("what is inserted comes back, queued, with its first event", async () => {
    const text = "\u0000 \ud800 \ue000 🎓";
    const made = await queue.insert(newJob("tjob_1", { config: { text, z: 1, a: 0.1 }, metadata: { [text]: text } }));
    expect(made).toEqual({
      id: "tjob_1",
      kind: "test",
      status: "queued",
      config: { text, z: 1, a: 0.1 },
      configHash: "hash",
      seed: 4_294_967_295,
      metadata: { [text]: text },
      progress: null,
      attemptStep: null,
      metrics: {},
      result: null,
      error: null,
      wanted: null,
      leaseToken: 0,
      leaseOwner: null,
      leaseUntil: null,
      attempts: 0,
      crashes: 0,
      crashStep: null,
      lastSeq: 1,
      createdAt: expect.any(Date),
      startedAt: null,
      finishedAt: null,
    } satisfies JobRecord);
    expect(Math.abs(made.createdAt.getTime() - Date.now())).toBeLessThan(5_000);
    expect(await queue.get("tjob_1")).toEqual(made);
    expect(outline(await allEvents(queue, "tjob_1"))).toEqual(["job.status queued"]);
    await expect(queue.get("tjob_2")).rejects.toMatchObject({ code: "not_found" });
  });

  test("the oldest first, whatever the ids; each under a new token and a lease by the database's clock", async () => {
    const ids = ["c", "a", "b"];
    for (const id of ids) {
      await queue.insert(newJob(id));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const claimed = [await claimOne("me"), await claimOne(), await claimOne()] as JobRecord[];
    expect(claimed.map((job) => job.id)).toEqual(ids);
    expect(claimed[0]).toMatchObject({ status: "running", leaseOwner: "me", leaseToken: 1, attempts: 1, wanted: null });
    const leaseMs = claimed[0]!.leaseUntil!.getTime() - claimed[0]!.startedAt!.getTime();
    expect(leaseMs).toBe(60_000);
    expect(await claimOne()).toBeUndefined();
    await queue.giveBack(leaseOf(claimed[1]!));
    expect(await claimOne()).toMatchObject({ id: "a", leaseToken: 2, attempts: 2, startedAt: claimed[1]!.startedAt });
    expect(outline(await allEvents(queue, "a"))).toEqual([
      "job.status queued",
      "job.status running",
      "job.status queued",
      "job.status running",
    ]);
  });

  test("only jobs of one's own kinds", async () => {
    await queue.insert(newJob("first", { kind: "other" }));
    await queue.insert(newJob("second"));
    expect(await claimOne("w", [])).toBeUndefined();
    expect(await claimOne("w", ["unheard", "of"])).toBeUndefined();
    expect(await claimOne()).toMatchObject({ id: "second" });
    expect(await claimOne("w", ["test", "other"])).toMatchObject({ id: "first" });
  });

  test("of many workers that claim at once each gets another job, and all jobs are taken", async () => {
    const ids = Array.from({ length: 30 }, (_, n) => `j${n}`);
    await Promise.all(ids.map((id) => queue.insert(newJob(id))));
    const claims = await Promise.all(Array.from({ length: 60 }, (_, n) => claimOne(`w${n}`)));
    const claimed = claims.flatMap((job) => (job ? [job.id] : []));
    expect(claimed.toSorted()).toEqual(ids.toSorted());
    for (const id of ids)
      expect(outline(await allEvents(queue, id))).toEqual(["job.status queued", "job.status running"]);
  });

  test("one job is held by one worker at a time, however often it goes back", async () => {
    await queue.insert(newJob("hot"));
    const tokens: number[] = [];
    let holders = 0;
    let most = 0;
    const worker = async (name: string): Promise<void> => {
      while (tokens.length < 20) {
        const job = await claimOne(name);
        if (!job) continue;
        most = Math.max(most, ++holders);
        tokens.push(job.leaseToken);
        await queue.heartbeat(leaseOf(job), 60_000);
        holders--;
        await queue.giveBack(leaseOf(job));
      }
    };
    await Promise.all(["a", "b", "c", "d", "e", "f"].map(worker));
    expect(most).toBe(1);
    expect(tokens).toEqual(tokens.map((_, n) => n + 1));
  });

  test("lists page by kind, status and metadata", async () => {
    await queue.insert(newJob("a", { metadata: { run: "1" } }));
    await queue.insert(newJob("b", { kind: "other", metadata: { run: "1" } }));
    await queue.insert(newJob("c", { metadata: { run: "2" } }));
    await take(queue);
    const ids = async (query: object) =>
      (await queue.list({ limit: 10, order: "asc", ...query })).rows.map((job) => job.id).toSorted();
    expect(await ids({})).toEqual(["a", "b", "c"]);
    expect(await ids({ kinds: ["test"] })).toEqual(["a", "c"]);
    expect(await ids({ metadata: { run: "1" } })).toEqual(["a", "b"]);
    expect((await ids({ status: "running" })).length).toBe(1);
    expect(await queue.list({ limit: 2, order: "desc" })).toMatchObject({ hasMore: true });
  });
});

describePostgres("claiming beside a claim under way", (url) => {
  test("passes over a job that another is just taking, and waits for nobody", async () => {
    const database = await openPostgres(url(), SILENT);
    const queue = createJobQueue(database.db);
    await queue.insert(newJob("a"));
    await new Promise((resolve) => setTimeout(resolve, 5));
    await queue.insert(newJob("b"));
    await database.db.transaction(async (tx) => {
      await tx.select().from(jobs).where(eq(jobs.id, "a")).for("update");
      const begin = performance.now();
      expect((await take(queue)).job.id).toBe("b");
      expect(await queue.claim({ owner: "w", kinds: ["test"], leaseMs: 60_000 })).toBeUndefined();
      expect(await queue.sweep({ exclusive: true })).toMatchObject([{ id: "b" }]);
      expect(performance.now() - begin).toBeLessThan(5_000);
    });
    expect((await take(queue)).job.id).toBe("a");
    await database.close();
  });
});
