import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { mebibytes, processBytes } from "./process-memory.ts";
import { randomFrom } from "./random.ts";
import { writeRandomModel } from "./random-model.ts";
import { type BenchServer, type ServerOptions, startBenchServer } from "./server.ts";
import { type Visit, visit } from "./soak-load.ts";

export interface SoakOptions extends ServerOptions {
  /** Until caches are full and pools have grown; memory is not judged before. */
  warmupMinutes?: number;
  minutes?: number;
  /** Clients at a time; each does one thing after the other. */
  clients?: number;
  seed?: number;
}

const SAMPLE_INTERVAL_MS = 10_000;
const MINUTE_MS = 60_000;
/** A leak that matters to a server that runs for weeks; below it is the noise of a heap. */
const SLOPE_TARGET_MB = 1;
/** After the last request: time to give back what only load needed. */
const REST_MS = 10_000;

interface Sample {
  minute: number;
  rss: number;
  anon: number;
}

/** What the clients have seen so far. */
interface Tally {
  visits: number;
  tokens: number;
  refused: number;
  kinds: Map<string, number>;
  faults: Map<string, number>;
}

/** Mixed load for a while: does the server's memory stay where it was, and does every request get what it asked for? */
export async function benchSoak(options: SoakOptions, print: (line: string) => void): Promise<void> {
  const { warmupMinutes = 5, minutes = 15, clients = 6, seed = 1 } = options;
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-soak-"));
  let server: BenchServer | undefined;
  try {
    const directory = options.directory ?? (await writeRandomModel(path.join(scratch, "random")));
    server = await startBenchServer({ scratch, directory, precision: options.precision, threads: options.threads });
    print(
      `server: ${options.directory ?? "random weights of SmolLM2-135M's shape"}, ${options.precision}; ${clients} clients, ` +
        `${warmupMinutes} min to warm up, then ${minutes} min`,
    );
    const { base } = server;
    const tally: Tally = { visits: 0, tokens: 0, refused: 0, kinds: new Map(), faults: new Map() };
    const load = startLoad(base, tally, { clients, seed });
    const samples = await watch(server, tally, warmupMinutes, warmupMinutes + minutes, print).finally(load.stop);
    const stopped = performance.now();
    await load.ended;
    print(`the last request ended ${((performance.now() - stopped) / 1000).toFixed(0)} s after the load was stopped`);
    await delay(REST_MS);
    report(server, tally, samples, print);
  } finally {
    await server?.stop();
    await rm(scratch, { recursive: true, force: true });
  }
}

function startLoad(
  base: string,
  tally: Tally,
  { clients, seed }: { clients: number; seed: number },
): { stop(): void; ended: Promise<unknown> } {
  let running = true;
  const client = async (which: number): Promise<void> => {
    // Each has numbers of its own, so that what one does does not depend on how fast the others are.
    const next = randomFrom(seed * 1000 + which);
    while (running) count(tally, await visit(base, next));
  };
  const ended = Promise.all(Array.from({ length: clients }, (_, which) => client(which)));
  return {
    stop() {
      running = false;
    },
    ended,
  };
}

function count(tally: Tally, { what, tokens, refused, fault }: Visit): void {
  tally.visits++;
  tally.tokens += tokens;
  if (refused) tally.refused++;
  tally.kinds.set(what, (tally.kinds.get(what) ?? 0) + 1);
  if (!fault) return;
  const line = `${what}: ${fault}`;
  tally.faults.set(line, (tally.faults.get(line) ?? 0) + 1);
}

/** The samples after the warm-up. Throws when the server is gone. */
async function watch(
  server: BenchServer,
  tally: Tally,
  warmupMinutes: number,
  endMinutes: number,
  print: (line: string) => void,
): Promise<Sample[]> {
  const started = performance.now();
  const samples: Sample[] = [];
  let printed = 0;
  for (let tick = 1; ; tick++) {
    await delay(Math.max(0, started + tick * SAMPLE_INTERVAL_MS - performance.now()));
    const minute = (performance.now() - started) / MINUTE_MS;
    const rss = processBytes(server.pid, "VmRSS");
    const anon = processBytes(server.pid, "RssAnon");
    if (rss === undefined || anon === undefined)
      throw new Error(server.loggedErrors.at(-1) ?? "the server's memory cannot be read: Linux only");
    if (minute >= warmupMinutes) samples.push({ minute, rss, anon });
    if (minute >= printed + 1) {
      printed = Math.floor(minute);
      const warm = minute < warmupMinutes ? " (warming up)" : "";
      print(
        `${String(printed).padStart(3)} min${warm}: ${mebibytes(rss)}, anonymous ${mebibytes(anon)}, ` +
          `${await insides(server)}; ${tally.visits} requests, ${tally.tokens} tokens, ${total(tally.faults)} faults`,
      );
    }
    if (minute >= endMinutes) return samples;
  }
}

/** Where memory is, by the server's own account: which part grew tells where to look. */
async function insides(server: BenchServer): Promise<string> {
  const text = await (await fetch(`${server.base}/metrics`)).text();
  const gauge = (name: string): string => mebibytes(Number(new RegExp(`^${name} (\\S+)`, "m").exec(text)?.[1]));
  return (
    `models ${gauge("preceptor_models_bytes")}, prefixes ${gauge("preceptor_prefix_cache_bytes")}, ` +
    `main heap ${gauge("nodejs_heap_size_used_bytes")}, external ${gauge("nodejs_external_memory_bytes")}`
  );
}

function report(server: BenchServer, tally: Tally, samples: readonly Sample[], print: (line: string) => void): void {
  for (const what of ["rss", "anon"] as const) {
    const { slope, error } = leastSquares(samples.map((sample) => [sample.minute, sample[what] / 1e6]));
    print(
      `${what === "rss" ? "memory" : "anonymous memory"}: ${slope.toFixed(2)} ± ${error.toFixed(2)} MB per minute ` +
        `(target below ${SLOPE_TARGET_MB}: ${slope < SLOPE_TARGET_MB ? "met" : "MISSED"})`,
    );
  }
  print(`after ${REST_MS / 1000} s without load: ${mebibytes(processBytes(server.pid, "VmRSS"))}`);
  const kinds = [...tally.kinds].map(([what, times]) => `${times} ${what}`).join(", ");
  print(`${tally.visits} requests (${kinds}), ${tally.tokens} tokens, ${tally.refused} times 429`);
  print(`${total(tally.faults)} faults (target none)`);
  for (const [fault, times] of [...tally.faults].slice(0, 10)) print(`  ${times} × ${fault.slice(0, 500)}`);
  print(`${server.loggedErrors.length} errors in the server's log`);
  for (const line of server.loggedErrors.slice(0, 5)) print(`  ${line.slice(0, 1000)}`);
}

const total = (counts: ReadonlyMap<string, number>): number => [...counts.values()].reduce((sum, n) => sum + n, 0);

/**
 * The line nearest to the points: slope = Σ(x − x̄)(y − ȳ) / Σ(x − x̄)², with its standard error, as if one point's
 * distance from the line told nothing of the next one's.
 */
function leastSquares(points: readonly (readonly [x: number, y: number])[]): { slope: number; error: number } {
  const sum = (value: (x: number, y: number) => number): number =>
    points.reduce((total, [x, y]) => total + value(x, y), 0);
  const [meanX, meanY] = [sum((x) => x) / points.length, sum((_, y) => y) / points.length];
  const spread = sum((x) => (x - meanX) ** 2);
  const slope = sum((x, y) => (x - meanX) * (y - meanY)) / spread;
  const rest = sum((x, y) => (y - meanY - slope * (x - meanX)) ** 2);
  return { slope, error: Math.sqrt(rest / (points.length - 2) / spread) };
}
