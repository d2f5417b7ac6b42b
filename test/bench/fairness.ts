import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { burst } from "./overload.ts";
import { post, readText } from "./post.ts";
import { mebibytes, processBytes } from "./process-memory.ts";
import { quantile } from "./quantile.ts";
import { randomFrom, randomIds } from "./random.ts";
import { writeRandomModel } from "./random-model.ts";
import { type BenchServer, type ServerOptions, startBenchServer } from "./server.ts";
import { bytesInKernel, readSlowly } from "./slow-reader.ts";
import { emptyStream, readTokens, type TokenStream, tokensPerSecond } from "./token-stream.ts";

export interface FairnessOptions extends ServerOptions {
  /** Streams at a time, the slow reader's among them; one client may have 64. */
  streams?: number;
  /** New tokens of each. */
  tokens?: number;
  /** Requests at once on a server whose places are all taken. */
  burst?: number;
}

const PROMPT_TOKENS = 50;
/** The slowest stream over the median one. */
const SHARE_TARGET = 1 / 3;
/** Loopback keeps 2.5 MB for a reader who is behind; alternatives for this many tokens are 3.4 MB, sent before the text. */
const SLOW_PROMPT_TOKENS = 2000;
const SLOW_ALTERNATIVES = 20;
/** It should still be decoded when the others end. */
const SLOW_TOKENS_FACTOR = 3;

/** Does everybody get a share: 64 streams beside a client that hardly reads, then far more requests than there are places. */
export async function benchFairness(options: FairnessOptions, print: (line: string) => void): Promise<void> {
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-fairness-"));
  let server: BenchServer | undefined;
  try {
    const directory = options.directory ?? (await writeRandomModel(path.join(scratch, "random")));
    server = await startBenchServer({ scratch, directory, precision: options.precision, threads: options.threads });
    print(`server: ${options.directory ?? "random weights of SmolLM2-135M's shape"}, ${options.precision}`);
    // The first request loads the model.
    await readText(await post(`${server.base}/v1/completions`, { model: "bench", prompt: [10], max_tokens: 1 }));
    await shares(server, options, print);
    await server.idle();
    await burst(server, { places: options.streams ?? 64, requests: options.burst ?? 400 }, print);
    await server.idle();
    print(`memory of the server: ${mebibytes(processBytes(server.pid, "VmRSS"))} at the end`);
    for (const line of server.loggedErrors.slice(0, 5)) print(`the server logged: ${line}`);
  } finally {
    await server?.stop();
    await rm(scratch, { recursive: true, force: true });
  }
}

async function shares(server: BenchServer, options: FairnessOptions, print: (line: string) => void): Promise<void> {
  const { streams = 64, tokens = 200 } = options;
  const before = processBytes(server.pid, "VmRSS");
  const slow = await openSlowly(server, tokens * SLOW_TOKENS_FACTOR);
  const started = performance.now();
  const others = await Promise.all(Array.from({ length: streams - 1 }, (_, which) => oneStream(server, which, tokens)));
  const seconds = (performance.now() - started) / 1000;

  const rates = others.map(tokensPerSecond);
  const [median, slowest] = [quantile(rates, 0.5), Math.min(...rates)];
  const waits = others.map(({ firstToken }) => (firstToken - started) / 1000);
  const count = others.reduce((sum, stream) => sum + stream.tokens, 0);
  const faults = others.filter(({ complete, error, tokens: got }) => !complete || error || got !== tokens);
  print(
    `${streams} streams of ${tokens} tokens, one read slowly: ${count} tokens of the others in ${seconds.toFixed(1)} s, ` +
      `${(count / seconds).toFixed(0)} tokens/s together`,
  );
  print(
    `  tokens/s of a stream: median ${median.toFixed(2)}, slowest ${slowest.toFixed(2)}, ratio ` +
      `${(slowest / median).toFixed(2)} (target at least ${SHARE_TARGET.toFixed(2)}: ` +
      `${slowest / median >= SHARE_TARGET ? "met" : "MISSED"})`,
  );
  print(`  first token after: median ${quantile(waits, 0.5).toFixed(1)} s, last ${Math.max(...waits).toFixed(1)} s`);
  if (faults.length > 0) print(`  FAULTS: ${faults.length} streams, the first: ${JSON.stringify(faults[0])}`);
  print(`  slow reader: ${slow.report()}`);
  print(`  memory of the server: ${mebibytes(before)} before, ${mebibytes(processBytes(server.pid, "VmRSS"))} now`);
  const left = performance.now();
  slow.leave();
  await server.idle();
  print(`  idle ${(performance.now() - left).toFixed(0)} ms after the slow reader left`);
}

async function oneStream(server: BenchServer, which: number, tokens: number): Promise<TokenStream> {
  const seen = emptyStream();
  try {
    const response = await post(`${server.base}/v1/completions`, bodyOf(which, PROMPT_TOKENS, tokens));
    if (response.statusCode === 200) return await readTokens(response, seen);
    return { ...seen, error: `${response.statusCode} ${await readText(response)}` };
  } catch (error) {
    return { ...seen, error: String(error) };
  }
}

function bodyOf(which: number, promptTokens: number, tokens: number): Record<string, unknown> {
  return {
    model: "bench",
    prompt: randomIds(randomFrom(which + 1), promptTokens),
    max_tokens: tokens,
    temperature: 0.7,
    seed: which,
    ignore_eos: true,
    return_token_ids: true,
    stream: true,
  };
}

/** Resolves when the kernel holds all it takes, so that the server itself has to wait for this reader. */
async function openSlowly(server: BenchServer, tokens: number): Promise<{ report(): string; leave(): void }> {
  const leaving = new AbortController();
  const alternatives = { prompt_logprobs: SLOW_ALTERNATIVES, logprobs: SLOW_ALTERNATIVES };
  const body = { ...bodyOf(1000, SLOW_PROMPT_TOKENS, tokens), ...alternatives };
  const response = await post(`${server.base}/v1/completions`, body, { signal: leaving.signal });
  if (response.statusCode !== 200) throw new Error(`${response.statusCode} ${await readText(response)}`);
  const port = response.socket.localPort as number;
  const started = performance.now();
  const seen = emptyStream();
  let read = 0;
  let state = "still connected";
  const slowly = readSlowly(response, (bytes) => {
    read += bytes;
  });
  readTokens(slowly, seen).then(
    () => {
      state = seen.error ?? "read to its end";
    },
    (error: unknown) => {
      state = `cut off: ${String(error)}`;
    },
  );
  await full(port);
  return {
    report() {
      const rate = read / (performance.now() - started);
      const waiting = bytesInKernel(port);
      return `${rate.toFixed(1)} KB/s, ${seen.tokens} tokens, ${((waiting ?? Number.NaN) / 1e6).toFixed(1)} MB wait in the kernel, ${state}`;
    },
    leave: () => leaving.abort(),
  };
}

const FULL_INTERVAL_MS = 500;
/** The prompt of the slow reader has to be scored first; more than this means that its alternatives did not fill the kernel. */
const FULL_TIMEOUT_MS = 60_000;

async function full(port: number): Promise<void> {
  const until = performance.now() + FULL_TIMEOUT_MS;
  let last = 0;
  while (performance.now() < until) {
    await delay(FULL_INTERVAL_MS);
    const now = bytesInKernel(port);
    if (now === undefined || (now > 2 ** 16 && now <= last)) return;
    last = now;
  }
}
