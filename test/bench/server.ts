import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseEvents } from "../../src/cli/server/sse.ts";

export interface ExplainResult {
  completed: boolean;
  completionTokens: number;
}

export interface BenchServer {
  get(route: string): Promise<void>;
  /** One explanation, streamed. */
  explain(body: Record<string, unknown>): { firstDelta: Promise<void>; finished: Promise<ExplainResult> };
  /** A generation that only leaving ends (within the context). */
  endless(): { firstByte: Promise<void>; leave(): void };
  /** Resolves when no sequence is being decoded or waits. */
  idle(): Promise<void>;
  peakMemoryBytes(): number | undefined;
  stop(): Promise<void>;
}

interface Options {
  scratch: string;
  directory: string;
  precision: string;
  threads?: number | undefined;
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** `preceptor serve` from the sources in a child process, with the model registered as "bench". */
export async function startBenchServer({ scratch, directory, precision, threads }: Options): Promise<BenchServer> {
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
    },
  });
  const base = await listening(child.stdout);
  await post(`${base}/v1/teachers`, { id: "bench", model: path.resolve(directory), precision });
  return {
    get: async (route) => void (await (await fetch(base + route)).arrayBuffer()),
    explain: (body) => explain(base, { teacher: "bench", question: "q", solution: "s", stream: true, ...body }),
    endless: () => endless(base),
    async idle() {
      while ((await busy(base)) > 0) await delay(20);
    },
    peakMemoryBytes: () => peakMemory(child.pid as number),
    async stop() {
      child.kill("SIGTERM");
      await once(child, "close");
    },
  };
}

function listening(stdout: Readable): Promise<string> {
  return new Promise((resolve, reject) => {
    const lines: string[] = [];
    createInterface({ input: stdout })
      .on("line", (line) => {
        lines.push(line);
        const url = /listens on (http:\/\/[^\s"]+)/.exec(line)?.[1];
        if (url) resolve(url);
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
async function busy(base: string): Promise<number> {
  const metrics = await (await fetch(`${base}/metrics`)).text();
  const gauge = (name: string): number => Number(new RegExp(`^${name} (\\d+)`, "m").exec(metrics)?.[1] ?? 0);
  return gauge("preceptor_sequences_active") + gauge("preceptor_sequences_waiting");
}

/** The most the process ever held in memory; Linux only. */
function peakMemory(pid: number): number | undefined {
  try {
    const kilobytes = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  } catch {
    return undefined;
  }
}
