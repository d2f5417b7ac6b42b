/** A whole server in a process of its own, to be killed: models directory, data directory, database URL ("": embedded), lease (ms), and whose datasets: `memory` or its own. */
import { startPreceptor } from "../running.ts";
import { memoryDatasets } from "../training-fixture.ts";

const [, , models = "", dataDir = "", databaseUrl = "", leaseMs = "", datasets = "memory"] = process.argv;
const env = {
  PRECEPTOR_MODELS_DIRS: models,
  PRECEPTOR_THREADS: "1",
  ...(databaseUrl ? { DATABASE_URL: databaseUrl } : {}),
};
const lease = { leaseMs: Number(leaseMs), heartbeatMs: Number(leaseMs) / 6 };
const server = await startPreceptor(env, dataDir, {
  ...(datasets === "memory" ? { datasets: memoryDatasets() } : {}),
  ...(leaseMs ? { lease } : {}),
});
process.stdout.write(`url ${server.url}\n`);
for await (const _ of process.stdin);
await server.close();
process.stdout.write("closed\n");
