/**
 * A worker in a process of its own: data directory, database URL ("" for the embedded one), lease and heartbeat (ms).
 * Its job counts to `config.steps`, saves a checkpoint every fifth step, goes on from the last one, and prints its steps.
 */
import { setTimeout as delay } from "node:timers/promises";
import { openDatabase } from "../../../src/db/database.ts";
import { createJobQueue } from "../../../src/jobs/queue.ts";
import { createJobRunner } from "../../../src/jobs/runner.ts";

const [, , dataDir = "", databaseUrl = "", leaseMs, heartbeatMs] = process.argv;
const database = await openDatabase({ dataDir, databaseUrl: databaseUrl || undefined });
const queue = createJobQueue(database.db);
const print = (line: string): void => void process.stdout.write(`${line}\n`);
const quiet = (): void => undefined;

const runner = createJobRunner({
  queue,
  workerId: `process ${process.pid}`,
  log: {
    debug: quiet,
    info: quiet,
    warn: quiet,
    error: (details, message) => print(`${message} ${JSON.stringify(details)}`),
  },
  now: () => performance.now(),
  exclusive: database.kind === "pglite",
  leaseMs: Number(leaseMs),
  heartbeatMs: Number(heartbeatMs),
  pollMs: 50,
  handlers: {
    async count({ job, signal, metrics, progress, checkpoint }) {
      const { steps } = job.config as { steps: number };
      const from = (await queue.lastCheckpoint(job.id))?.step ?? 0;
      for (let step = from + 1; step <= steps; step++) {
        signal.throwIfAborted();
        await metrics(step, { value: step * step });
        await progress({ step, total_steps: steps });
        if (step % 5 === 0) {
          const id = `${job.id}-${step}-${job.attempts}`;
          await checkpoint({ id, step, kind: "count", artifact: id, weightsHash: id, config: {} });
        }
        print(`step ${step}`);
        await delay(40);
      }
      return { outcome: "succeeded", result: { resumed_from: from } };
    },
  },
});
print("ready");
for await (const _ of process.stdin);
await runner.stop();
await database.close();
print("closed");
