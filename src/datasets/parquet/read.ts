/** A Parquet file → candidates of rows, read in a process of its own (process.ts). */
import { once } from "node:events";
import { createLimiter } from "../../concurrency.ts";
import { deferred } from "../../deferred.ts";
import { fail } from "../../errors.ts";
import { spawnProcess } from "../../thread/spawn-process.ts";
import { readJsonl } from "../jsonl.ts";
import type { RawRow } from "../row.ts";
import { MAX_READERS, READER_HEAP_MB, READER_SILENCE_MS } from "./limits.ts";

/** Says "bad file" on standard error; a sentence, bounded in case it is none. */
const EXIT_BAD_FILE = 2;
const MAX_REASON = 500;
/** Of the whole program: it is about the machine's memory. */
const readers = createLimiter(MAX_READERS);

export interface ReadParquetOptions {
  signal?: AbortSignal | undefined;
  /** What the rows may come to as text. Repetition costs a Parquet file next to nothing. */
  maxBytes: number;
  heapMb?: number;
  silenceMs?: number;
}

/** Lines are row numbers, from 1. Throws `invalid_dataset` for what is wrong with the file as a whole. */
export async function* readParquet(path: string, options: ReadParquetOptions): AsyncGenerator<RawRow> {
  const place = deferred<void>();
  const begun = deferred<void>();
  const ended = readers(() => {
    begun.resolve();
    return place.promise;
  });
  await begun.promise;
  try {
    yield* readWithin(path, options);
  } finally {
    place.resolve();
    await ended;
  }
}

async function* readWithin(
  path: string,
  { signal, maxBytes, heapMb = READER_HEAP_MB, silenceMs = READER_SILENCE_MS }: ReadParquetOptions,
): AsyncGenerator<RawRow> {
  signal?.throwIfAborted();
  const child = spawnProcess(new URL("./process.ts", import.meta.url), [path], [`--max-old-space-size=${heapMb}`]);
  const exit = once(child, "exit") as Promise<[code: number | null, signal: string | null]>;
  let reason = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (reason.length < MAX_REASON) reason += text;
  });
  let silent = false;
  const kill = (): void => void child.kill("SIGKILL");
  const silence = setTimeout(() => {
    silent = true;
    kill();
  }, silenceMs);
  signal?.addEventListener("abort", kill, { once: true });

  async function* output(): AsyncGenerator<Buffer> {
    let bytes = 0;
    for await (const piece of child.stdout as AsyncIterable<Buffer>) {
      silence.refresh();
      bytes += piece.length;
      if (bytes > maxBytes) throw tooMuch(maxBytes);
      yield piece;
    }
  }

  try {
    for await (const row of readJsonl(output())) {
      yield "value" in row && typeof row.value === "string" ? { line: row.line, fault: row.value } : row;
    }
    const [code] = await exit;
    signal?.throwIfAborted();
    if (silent) throw broken(`no row could be read for ${silenceMs / 1000} seconds`);
    if (code === EXIT_BAD_FILE) throw broken(reason.slice(0, MAX_REASON));
    if (code !== 0) {
      throw broken(`it needs more than ${heapMb} MB of memory; write it with smaller pages and row groups`);
    }
  } finally {
    clearTimeout(silence);
    signal?.removeEventListener("abort", kill);
    kill();
  }
}

const broken = (why: string): Error =>
  fail("invalid_dataset", `the Parquet file cannot be read: ${why}`, { param: "file" });

function tooMuch(maxBytes: number): Error {
  return fail(
    "payload_too_large",
    `The Parquet file unpacks to more than ${maxBytes} bytes. Split it, or have the server's PRECEPTOR_MAX_DATASET_MB raised.`,
    { param: "file" },
  );
}
