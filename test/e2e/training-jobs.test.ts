/** Training jobs through the front door: an untrained miniature teaches an untrained miniature. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TrainingJob } from "../../src/api/training/jobs/schemas.ts";
import { type Running, startPreceptor } from "./running.ts";
import { memoryDatasets, miniatureDirectory, RLT_JOB, registerBoth, waitFor } from "./training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
let server: Running;
beforeAll(async () => {
  models = await miniatureDirectory();
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models.directory, PRECEPTOR_THREADS: "1" }, undefined, {
    datasets: memoryDatasets(),
  });
  await registerBoth(server);
});
afterAll(async () => {
  await server?.close();
  await models?.remove();
});

test("a job of rlt runs to its end and publishes the next version of its teacher", async () => {
  const created = await server.post<TrainingJob>("/v1/training/jobs", { ...RLT_JOB, metadata: { run: "7" } }, 201);
  expect(created).toMatchObject({ status: "queued", method: "rlt", seed: 7, metadata: { run: "7" } });
  expect(created.config).toMatchObject({ model: "teacher@1", student: "student@1", from_checkpoint: null });
  const job = await waitFor(server, created.id);
  expect(job.error).toBeUndefined();
  expect(job).toMatchObject({ status: "succeeded", progress: { step: 3, total_steps: 3, percent: 100 } });
  expect(job.result).toMatchObject({ teacher: "teacher@2", step: 3 });
}, 60_000);
