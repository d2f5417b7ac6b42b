import { resolve } from "node:path";
import { fail } from "../errors.ts";
import { spawnWorker } from "../thread/spawn.ts";
import { CALL_LIMIT_MS, CALL_LIMIT_MS_PER_KB, MAX_TEXT_CHARS, OPEN_LIMIT_MS, WORKER_HEAP_MB } from "./limits.ts";
import type { EncodeCall, OpenCall, OpenReply, PromptCall } from "./protocol.ts";
import { createSerialWorker, type SerialWorker } from "./serial-worker.ts";
import type { Encoded, PromptRequest, TextModel, TextService } from "./text.ts";
import { bytesOfId, decodeIds, type TokenBytes } from "./token-bytes.ts";

export interface TextServiceOptions {
  /** Time for encoding one text, besides what its length adds. */
  callLimitMs?: number;
}

/** Starts the text worker at the first call. Models with the same tokenizer share its memory, here and in the worker. */
export function createTextService({ callLimitMs = CALL_LIMIT_MS }: TextServiceOptions = {}): TextService {
  const worker = createSerialWorker({
    spawn: () =>
      spawnWorker(new URL("./worker.ts", import.meta.url), {
        name: "text",
        resourceLimits: { maxOldGenerationSizeMb: WORKER_HEAP_MB },
      }),
  });
  /** Held weakly: a table goes with the last model that uses it. */
  const tables = new Map<string, WeakRef<TokenBytes>>();

  return {
    async open(directory) {
      const path = resolve(directory);
      // Strong references while the call is under way: the worker will not send these again.
      const held = new Map([...tables].flatMap(([hash, ref]) => toEntry(hash, ref.deref())));
      const call: OpenCall = { directory: path, known: [...held.keys()] };
      const reply = await worker.call<OpenReply>("open", call, OPEN_LIMIT_MS);
      const table = reply.bytes ?? (held.get(reply.tokenizerHash) as TokenBytes);
      tables.set(reply.tokenizerHash, new WeakRef(table));
      return createModel(worker, path, reply, table, callLimitMs);
    },
    close: () => worker.close(),
  };
}

const toEntry = (hash: string, table: TokenBytes | undefined): [string, TokenBytes][] => (table ? [[hash, table]] : []);

function createModel(
  worker: SerialWorker,
  directory: string,
  reply: OpenReply,
  table: TokenBytes,
  callLimitMs: number,
): TextModel {
  const { identity, tokenizerHash, hasChatTemplate, eosIds, stripsSpace } = reply;
  const model = { identity, directory };
  const limit = (chars: number): number => callLimitMs + (chars / 1024) * CALL_LIMIT_MS_PER_KB;
  const check = (chars: number): void => {
    if (chars <= MAX_TEXT_CHARS) return;
    throw fail("invalid_value", `the text has ${chars} characters; at most ${MAX_TEXT_CHARS} can be tokenised at once`);
  };
  return {
    tokenizerHash,
    size: table.special.length,
    hasChatTemplate,
    eosIds,
    stripsSpace,
    bytesOf: (id, special) => bytesOfId(table, id, special),
    async encode(text, options) {
      check(text.length);
      const call: EncodeCall = { model, text, ...options };
      return worker.call<Encoded>("encode", call, limit(text.length));
    },
    async encodePrompt(request) {
      const length = lengthOf(request);
      check(length);
      const call: PromptCall = { model, request };
      return worker.call<Encoded>("encodePrompt", call, limit(length));
    },
    // Linear and fast: not worth a trip to the worker.
    decode: async (ids, options) => decodeIds(table, ids, { special: options?.special, stripsSpace }),
  };
}

function lengthOf({ messages, assistant = [] }: PromptRequest): number {
  const contents = messages.reduce((sum, { content }) => sum + content.length, 0);
  return assistant.reduce((sum, { text }) => sum + text.length, contents);
}
