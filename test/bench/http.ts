import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { quantile } from "./quantile.ts";
import { writeRandomModel } from "./random-model.ts";
import { type BenchServer, type ServerOptions, startBenchServer } from "./server.ts";

/**
 * The server as its clients see it, in a process of its own: is it alive while it computes, how soon does the first
 * token come, do sixteen streams finish, how soon is a slot free again. Targets are printed beside the figures.
 */

const HEALTH_TARGET_MS = 50;
const LEAVE_TARGET_MS = 1000;
const STREAMS = 16;
const STREAM_TOKENS = 24;
/** Requests to /healthz at this distance: often enough for a p99, seldom enough not to be the load itself. */
const HEALTH_INTERVAL_MS = 10;
const HEALTH_SAMPLES = 400;
const FIRST_TOKEN_RUNS = 5;

const QUESTION = "A train leaves at nine and travels 120 km at 80 km/h. When does it arrive?";
const SOLUTION = "120 / 80 = 1.5 hours, so it arrives at half past ten.";

interface Row {
  what: string;
  value: string;
  target?: string;
  numbers: Record<string, number | boolean>;
}

export async function benchHttp(options: ServerOptions, print: (line: string) => void): Promise<void> {
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-http-"));
  let server: BenchServer | undefined;
  try {
    const directory = options.directory ?? (await writeRandomModel(path.join(scratch, "random")));
    server = await startBenchServer({ scratch, directory, precision: options.precision, threads: options.threads });
    print(`server: ${options.directory ?? "random weights of SmolLM2-135M's shape"}, ${options.precision}`);
    const rows = [
      await firstToken(server),
      await healthWhile(server, "one long generation", 1),
      await healthWhile(server, `${STREAMS} long generations`, STREAMS),
      await manyStreams(server),
      await leaving(server),
      peakMemory(server),
    ];
    for (const { what, value, target } of rows) {
      print(`${what.padEnd(44)} ${value}${target ? `   (target ${target})` : ""}`);
    }
    print(JSON.stringify(Object.fromEntries(rows.map(({ what, numbers }) => [what, numbers]))));
  } finally {
    await server?.stop();
    await rm(scratch, { recursive: true, force: true });
  }
}

async function firstToken(server: BenchServer): Promise<Row> {
  // The first request loads the model.
  await server.explain({ max_tokens: 1 }).finished;
  const times: number[] = [];
  for (let run = 0; run < FIRST_TOKEN_RUNS; run++) {
    const started = performance.now();
    const stream = server.explain({ question: `${QUESTION} (${run})`, solution: SOLUTION, max_tokens: 4 });
    await stream.firstDelta;
    times.push(performance.now() - started);
    await stream.finished;
  }
  const median = quantile(times, 0.5);
  return { what: "time to first token, median", value: `${median.toFixed(0)} ms`, numbers: { median_ms: median } };
}

/** /healthz from first to last sample while `streams` endless generations run. */
async function healthWhile(server: BenchServer, name: string, streams: number): Promise<Row> {
  const runs = Array.from({ length: streams }, () => server.endless());
  await Promise.all(runs.map((run) => run.firstByte));
  const times: number[] = [];
  for (let i = 0; i < HEALTH_SAMPLES; i++) {
    const started = performance.now();
    await server.get("/healthz");
    times.push(performance.now() - started);
    await delay(HEALTH_INTERVAL_MS);
  }
  for (const run of runs) run.leave();
  await server.idle();
  const at = (share: number): number => quantile(times, share);
  const numbers = { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1) };
  return {
    what: `/healthz during ${name}`,
    value: `p50 ${at(0.5).toFixed(1)} ms, p99 ${at(0.99).toFixed(1)} ms, max ${at(1).toFixed(1)} ms`,
    target: `p99 below ${HEALTH_TARGET_MS} ms: ${at(0.99) < HEALTH_TARGET_MS ? "met" : "MISSED"}`,
    numbers,
  };
}

async function manyStreams(server: BenchServer): Promise<Row> {
  const started = performance.now();
  const streams = Array.from({ length: STREAMS }, (_, seed) =>
    server.explain({ question: QUESTION, solution: SOLUTION, max_tokens: STREAM_TOKENS, seed }),
  );
  const results = await Promise.all(streams.map((stream) => stream.finished));
  const seconds = (performance.now() - started) / 1000;
  const tokens = results.reduce((sum, result) => sum + result.completionTokens, 0);
  const finished = results.filter((result) => result.completed).length;
  return {
    what: `${STREAMS} explanation streams at once`,
    value: `${finished} finished in ${seconds.toFixed(1)} s, ${(tokens / seconds).toFixed(1)} tokens/s together`,
    target: `all finish: ${finished === STREAMS ? "met" : "MISSED"}`,
    numbers: { finished, seconds, tokens_per_second: tokens / seconds },
  };
}

async function leaving(server: BenchServer): Promise<Row> {
  const run = server.endless();
  await run.firstByte;
  const started = performance.now();
  run.leave();
  await server.idle();
  const ms = performance.now() - started;
  return {
    what: "slot free after the client left",
    value: `${ms.toFixed(0)} ms`,
    target: `within ${LEAVE_TARGET_MS} ms: ${ms < LEAVE_TARGET_MS ? "met" : "MISSED"}`,
    numbers: { ms },
  };
}

function peakMemory(server: BenchServer): Row {
  const bytes = server.peakMemoryBytes();
  const value = bytes === undefined ? "unknown on this system" : `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  return { what: "peak memory of the server", value, numbers: bytes === undefined ? {} : { bytes } };
}
