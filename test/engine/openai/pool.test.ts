import { expect, test } from "vitest";
import { createConnection } from "../../../src/engine/openai/connection.ts";
import { RemoteFailure } from "../../../src/engine/openai/failure.ts";
import { createPool } from "../../../src/engine/openai/pool.ts";
import { createReplica } from "../../../src/engine/openai/replica.ts";

test("a pause that ends while the queue is being looked at is not missed", async () => {
  let clock = 0;
  let looks = 0;
  // The pause ends at 100: the clock passes it right after the first look found the replica paused.
  const now = (): number => {
    if (looks++ > 1) clock = 101;
    return clock;
  };
  const send = () => Promise.reject(new Error("nothing is sent here"));
  const replica = createReplica(createConnection({ send, baseUrl: "http://a/v1", key: undefined }), now);
  replica.failed(new RemoteFailure("busy", "has enough to do", { retryAfterMs: 100 }));
  looks = 0;
  clock = 99;
  const pool = createPool([replica], now);
  const told: string[] = [];
  const lease = await pool.lease({
    client: "",
    priority: "interactive",
    kind: "sample",
    sequences: 1,
    prefix: Int32Array.of(1),
    avoid: new Set(),
    signal: undefined,
    queued: ({ reason }) => told.push(reason),
  });
  expect(lease.replica).toBe(replica);
  expect(told).toEqual(["backend"]);
  lease.release();
});
