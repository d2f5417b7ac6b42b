import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Precision } from "../../src/engine/engine.ts";
import { parseEvents } from "../../src/parse-events.ts";
import { processBytes } from "./process-memory.ts";

export interface ExplainResult {
  completed: boolean;
  completionTokens: number;
}

export interface BenchServer {
  /** `http://127.0.0.1:…` */
  readonly base: string;
  readonly pid: number;
  /** Lines of its log at level error and above, and its end if it came unasked. */
  readonly loggedErrors: readonly string[];
  /** Throws unless the answer is a good one. */
  get(route: string): Promise<void>;
  /** One explanation, streamed. */
  explain(body: Record<string, unknown>): { firstDelta: Promise<void>; finished: Promise<ExplainResult> };
  /** A generation that only leaving ends (within the context). */
  endless(): { firstByte: Promise<void>; leave(): void };
  /** Resolves when no sequence waits: all there are have begun. */
  noneWaiting(): Promise<void>;
  /** Resolves when no sequence is being decoded or waits. */
  idle(): Promise<void>;
  peakMemoryBytes(): number | undefined;
  stop(): Promise<void>;
}

/** What every benchmark of the server is told. */
export interface ServerOptions {
  /** Checkpoint directory; a random one of SmolLM2-135M's shape when absent. */
  directory?: string;
  precision: Precision;
  threads?: number;
}

/** `scratch` becomes the data directory's parent; the server finds the model in `directory`. */
interface Options {
  scratch: string;
  directory: string;
  precision: Precision;
  threads?: number | undefined;
  /** Further settings. */
  env?: Record<string, string>;
  /** How "bench" is registered, if not as the checkpoint in `directory`. */
  register?: Record<string, unknown>;
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** pino's levels: 50 is error, 60 is fatal. */
const ERROR_LINE = /"level":[56]0\b/;

/** `preceptor serve` from the sources in a child process, with the model registered as teacher and student "bench". */
export async function startBenchServer({
  scratch,
  directory,
  precision,
  threads,
  ...more
}: Options): Promise<BenchServer> {
  const child = spawn(process.execPath, ["--import", "tsx", "src/main.ts", "serve", "--port", "0"], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      PRECEPTOR_DATA_DIR: path.join(scratch, "data"),
      PRECEPTOR_MODELS_DIRS: path.dirname(path.resolve(directory)),
      PRECEPTOR_LOG_FORMAT: "json",
      PRECEPTOR_SHUTDOWN_GRACE_S: "0",
      HF_HUB_OFFLINE: "1",
      ...(threads === undefined ? {} : { PRECEPTOR_THREADS: String(threads) }),
      ...more.env,
    },
  });
  const pid = child.pid as number;
  const loggedErrors: string[] = [];
  const closed = once(child, "close");
  let stopping = false;
  child.on("exit", (code, signal) => {
    if (!stopping) loggedErrors.push(`the server ended by itself: code ${code}, signal ${signal}`);
  });
  const base = await listening(child.stdout, loggedErrors);
  try {
    const model = { id: "bench", ...(more.register ?? { model: path.resolve(directory), precision }) };
    await post(`${base}/v1/teachers`, model);
    await post(`${base}/v1/students`, model);
  } catch (error) {
    child.kill();
    throw error;
  }
  return {
    base,
    pid,
    loggedErrors,
    async get(route) {
      const response = await fetch(base + route);
      await response.arrayBuffer();
      if (!response.ok) throw new Error(`${route}: ${response.status}`);
    },
    explain: (body) => explain(base, { teacher: "bench", question: "q", solution: "s", stream: true, ...body }),
    endless: () => endless(base),
    async noneWaiting() {
      while ((await sequences(base)).waiting > 0) await delay(20);
    },
    async idle() {
      for (let now = await sequences(base); now.active + now.waiting > 0; now = await sequences(base)) await delay(20);
    },
    peakMemoryBytes: () => processBytes(pid, "VmHWM"),
    async stop() {
      stopping = true;
      child.kill("SIGTERM");
      await closed;
    },
  };
}

/** Reads the log to its end, so that the pipe never fills; after the address only errors are kept. */
function listening(stdout: Readable, loggedErrors: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const lines: string[] = [];
    let listens = false;
    createInterface({ input: stdout })
      .on("line", (line) => {
        if (!listens) lines.push(line);
        if (ERROR_LINE.test(line)) loggedErrors.push(line);
        const url = /listens on (http:\/\/[^\s"]+)/.exec(line)?.[1];
        if (url) {
          listens = true;
          resolve(url);
        }
      })
      .on("close", () => reject(new Error(`the server ended before it listened:\n${lines.join("\n")}`)));
  });
}

async function post(url: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return response;
}

interface Explained {
  explanation?: { status: string; usage: { completion_tokens: number } };
}

function explain(base: string, body: unknown): ReturnType<BenchServer["explain"]> {
  let first: () => void = () => {};
  const firstDelta = new Promise<void>((resolve) => {
    first = resolve;
  });
  const finished = (async (): Promise<ExplainResult> => {
    const response = await post(`${base}/v1/explanations`, body);
    let result: Explained = {};
    for await (const event of parseEvents(response.body as unknown as AsyncIterable<Uint8Array>)) {
      // A model with random weights may sample ids that decode to nothing: then the choice's end is the first sign.
      if (event.event === "explanation.delta" || event.event === "explanation.choice") first();
      if (event.event === "explanation.completed") result = JSON.parse(event.data) as Explained;
      if (event.event === "error") throw new Error(event.data);
    }
    return {
      completed: result.explanation?.status === "completed",
      completionTokens: result.explanation?.usage.completion_tokens ?? 0,
    };
  })();
  return { firstDelta: Promise.race([firstDelta, finished.then(() => undefined)]), finished };
}

/** More tokens than any figure needs; when a small model is through with them it is asked again. */
const ENDLESS_TOKENS = 2000;

function endless(base: string): ReturnType<BenchServer["endless"]> {
  const leaving = new AbortController();
  let first: () => void = () => {};
  const firstByte = new Promise<void>((resolve) => {
    first = resolve;
  });
  const run = (async () => {
    while (!leaving.signal.aborted) {
      const body = { model: "bench", prompt: "q", max_tokens: ENDLESS_TOKENS, ignore_eos: true, stream: true };
      const response = await post(`${base}/v1/completions`, body, leaving.signal);
      for await (const _ of response.body ?? []) first();
    }
  })().catch((error: unknown) => {
    if (!leaving.signal.aborted) throw error;
  });
  return { firstByte: Promise.race([firstByte, run]), leave: () => leaving.abort() };
}

/** Sequences in slots and waiting, from the server's own metrics. */
async function sequences(base: string): Promise<{ active: number; waiting: number }> {
  const metrics = await (await fetch(`${base}/metrics`)).text();
  const gauge = (name: string): number => Number(new RegExp(`^${name} (\\d+)`, "m").exec(metrics)?.[1] ?? 0);
  return { active: gauge("preceptor_sequences_active"), waiting: gauge("preceptor_sequences_waiting") };
}
