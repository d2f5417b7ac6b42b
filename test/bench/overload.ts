import type { IncomingMessage } from "node:http";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { within } from "../../src/within.ts";
import { post, readText } from "./post.ts";
import { quantile } from "./quantile.ts";
import { randomFrom, randomIds } from "./random.ts";
import type { BenchServer } from "./server.ts";
import { readTokens } from "./token-stream.ts";

const TOKENS = 4;
/** Far longer than a prompt and a few tokens take beside 64 streams; after it the crowd leaves, and this is said. */
const NEWCOMER_PATIENCE_MS = 20_000;
const HEALTH_TARGET_MS = 50;
const HEALTH_INTERVAL_MS = 20;
/** Linux answers to all of 127.0.0.0/8; elsewhere the newcomer is the same client as the crowd. */
const NEWCOMER_ADDRESS = process.platform === "linux" ? "127.0.0.2" : undefined;

interface Answer {
  status: number;
  retryAfter: string | undefined;
  /** Milliseconds to the head of the response. */
  ms: number;
  /** undefined once the whole answer was as it should be. */
  fault: Promise<string | undefined>;
}

/**
 * All places of a client are taken and it sends `requests` more at once: who is told to come back, do the others get
 * their tokens in the end, does the server answer /healthz all the while, and does another client get its turn?
 */
export async function burst(
  server: BenchServer,
  { places, requests }: { places: number; requests: number },
  print: (line: string) => void,
): Promise<void> {
  const streams = Array.from({ length: places }, () => server.endless());
  await Promise.all(streams.map((stream) => stream.firstByte));
  await server.noneWaiting();
  const health = watchHealth(server);
  const crowd = await Promise.all(Array.from({ length: requests }, (_, which) => ask(server, which)));
  const started = performance.now();
  const newcomer = await ask(server, requests, NEWCOMER_ADDRESS);
  const served = newcomer.fault.then(() => performance.now() - started);
  const inTime = (await within(served, NEWCOMER_PATIENCE_MS)) !== undefined;
  for (const stream of streams) stream.leave();
  const left = performance.now();
  const faults = (await Promise.all(crowd.map(({ fault }) => fault))).filter((fault) => fault !== undefined);
  const drained = (performance.now() - left) / 1000;
  const [newcomerMs, newcomerFault] = [await served, await newcomer.fault];
  const { times, failures, lateMs } = await health.stop();

  const counts = new Map<number, number>();
  for (const { status } of crowd) counts.set(status, (counts.get(status) ?? 0) + 1);
  const refused = crowd.filter(({ status }) => status === 429 || status === 503);
  const told = refused.filter(({ retryAfter }) => Number(retryAfter) >= 1).length;
  print(
    `${requests} requests at once beside ${places} streams: ` +
      `${[...counts].map(([status, count]) => `${count} × ${status}`).join(", ")}; heads within ` +
      `${Math.max(...crowd.map(({ ms }) => ms)).toFixed(0)} ms`,
  );
  print(`  Retry-After on ${told} of ${refused.length} refusals (${refused[0]?.retryAfter ?? "none"} s)`);
  print(`  the others ended ${drained.toFixed(1)} s after the streams had left, ${faults.length} with a fault`);
  for (const fault of [...new Set(faults)].slice(0, 3)) print(`  FAULT: ${fault}`);
  print(
    `  ${NEWCOMER_ADDRESS ? "another client" : "the same client"} meanwhile: ${TOKENS} tokens in ` +
      `${(newcomerMs / 1000).toFixed(1)} s (target while the crowd is there: ${inTime ? "met" : "MISSED"})` +
      `${newcomerFault ? `, FAULT: ${newcomerFault}` : ""}`,
  );
  const p99 = quantile(times, 0.99);
  print(
    `  /healthz meanwhile: ${times.length} answers, ${failures} failures, p99 ${p99.toFixed(1)} ms, max ` +
      `${quantile(times, 1).toFixed(1)} ms, of which up to ${lateMs.toFixed(0)} ms are this client's own (target p99 below ${HEALTH_TARGET_MS} ms: ` +
      `${p99 < HEALTH_TARGET_MS && failures === 0 ? "met" : "MISSED"})`,
  );
}

async function ask(server: BenchServer, which: number, localAddress?: string): Promise<Answer> {
  const started = performance.now();
  const ms = (): number => performance.now() - started;
  const body = {
    model: "bench",
    prompt: randomIds(randomFrom(2000 + which), 20),
    max_tokens: TOKENS,
    ignore_eos: true,
    return_token_ids: true,
    stream: true,
  };
  try {
    const response = await post(`${server.base}/v1/completions`, body, { localAddress });
    const status = response.statusCode as number;
    return { status, retryAfter: response.headers["retry-after"], ms: ms(), fault: faultOf(response) };
  } catch (error) {
    return { status: 0, retryAfter: undefined, ms: ms(), fault: Promise.resolve(String(error)) };
  }
}

async function faultOf(response: IncomingMessage): Promise<string | undefined> {
  try {
    if (response.statusCode === 200) {
      const { tokens, complete, error } = await readTokens(response);
      return error ?? (complete && tokens === TOKENS ? undefined : `${tokens} tokens, complete: ${complete}`);
    }
    const text = await readText(response);
    const { error } = JSON.parse(text) as { error: { code: string } };
    return ["queue_full", "overloaded"].includes(error.code) ? undefined : text;
  } catch (error) {
    return String(error);
  }
}

interface Health {
  times: number[];
  failures: number;
  /** How late this process itself was at most, which is in the times: it sends the crowd too. */
  lateMs: number;
}

/** Asks again and again until it is stopped. */
function watchHealth(server: BenchServer): { stop(): Promise<Health> } {
  const times: number[] = [];
  const late = monitorEventLoopDelay({ resolution: 10 });
  late.enable();
  let failures = 0;
  let stopped = false;
  const watching = (async () => {
    while (!stopped) {
      const started = performance.now();
      await server.get("/healthz").catch(() => failures++);
      times.push(performance.now() - started);
      await delay(HEALTH_INTERVAL_MS);
    }
  })();
  return {
    async stop() {
      stopped = true;
      await watching;
      return { times, failures, lateMs: late.max / 1e6 };
    },
  };
}
