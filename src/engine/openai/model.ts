import { linked } from "../../abort.ts";
import { fail } from "../../errors.ts";
import { isObject } from "../../model/json.ts";
import type { ModelLoad, RemoteModel } from "../engine.ts";
import { checkDistributions, checkLogprobs, checkSample } from "../validate.ts";
import { asPreceptorError, endedBy, mayAnswerLater, RemoteFailure } from "./failure.ts";
import type { Health } from "./health.ts";
import { unavailable } from "./pool.ts";
import { contextLengthOf, type Remote } from "./remote.ts";
import { remoteSample } from "./sampling.ts";
import { remoteDistributions, remoteLogprobs } from "./scoring.ts";

/** A pool of servers as an `EngineModel`. Bad input is refused here, in the same words as by the embedded engine. */
export function createRemoteModel(remote: Remote, health: Health): RemoteModel {
  const { options, pool } = remote;
  let contextLength = contextLengthOf(remote);
  if (contextLength === Infinity) {
    throw fail("invalid_value", `the server of ${options.name} does not tell its context length; give context_length`, {
      param: "context_length",
    });
  }
  /** The server may be started anew with another; one that says nothing any more has the one it said last. */
  function contextNow(): number {
    const told = contextLengthOf(remote);
    if (told < Infinity) contextLength = told;
    return contextLength;
  }
  const load: ModelLoad = { active: 0, waiting: 0, scoring: 0, computedTokens: 0, cachedTokens: 0, prefixBytes: 0 };
  const closed = new AbortController();
  const bounds = () => ({ vocabSize: remote.profile.vocabSize, contextLength: contextNow() });

  function count(computed: number, cached: number): void {
    load.computedTokens += Math.max(0, computed - cached);
    load.cachedTokens += cached;
  }

  return {
    get capabilities() {
      return remote.profile.capabilities;
    },
    precision: null,
    get vocabSize() {
      return remote.profile.vocabSize;
    },
    get contextLength() {
      return contextNow();
    },
    memoryBytes: () => 0,
    weights: { key: options.name, bytes: 0 },
    async *sample(request) {
      checkSample(request, bounds());
      health.used();
      let cached = 0;
      load.active += request.n;
      try {
        for await (const event of remoteSample(remote, request, closed.signal)) {
          if (event.type === "usage") cached = event.cachedTokens;
          yield event;
        }
      } finally {
        load.active -= request.n;
        count(request.promptIds.length, cached);
      }
    },
    async logprobs(request) {
      checkLogprobs(request, bounds());
      if (request.signal?.aborted) throw endedBy(request.signal);
      health.used();
      load.scoring += request.sequences.length;
      const { signal, unlink } = linked(request.signal, closed.signal);
      try {
        const results = await remoteLogprobs(remote, { ...request, signal });
        results.forEach(({ cachedTokens }, i) => {
          count(request.sequences[i]!.ids.length, cachedTokens);
        });
        return results;
      } finally {
        unlink();
        load.scoring -= request.sequences.length;
      }
    },
    async *distributions(request) {
      checkDistributions(request, bounds());
      health.used();
      const { signal, unlink } = linked(request.signal, closed.signal);
      try {
        yield* remoteDistributions(remote, { ...request, signal });
      } finally {
        unlink();
      }
    },
    load: () => ({ ...load, waiting: pool.waiting }),
    name: options.name,
    replicas: () =>
      pool.replicas.map((replica) => ({
        where: replica.connection.where,
        state: replica.state(),
        active: replica.active,
      })),
    async probe() {
      if (!(await health.again())) throw unavailable(pool.replicas, remote.now());
    },
    async serverTokens(text, signal) {
      const { connection } = pool.replicas.find((replica) => replica.state() === "up") ?? pool.replicas[0]!;
      // vLLM, Preceptor, llama.cpp.
      const ways = [
        { root: true, path: "/tokenize", body: { model: options.name, prompt: text, add_special_tokens: false } },
        { root: false, path: "/tokenize", body: { model: options.name, prompt: text, add_special_tokens: false } },
        { root: true, path: "/tokenize", body: { content: text, add_special: false } },
      ];
      for (const { root, path, body } of ways) {
        try {
          const answer = await connection.post(path, body, { root, signal, timeoutMs: TOKENIZE_TIMEOUT_MS });
          const tokens = isObject(answer) ? answer.tokens : null;
          if (Array.isArray(tokens) && tokens.length > 0 && tokens.every(Number.isSafeInteger))
            return tokens as number[];
        } catch (error) {
          if (!(error instanceof RemoteFailure)) throw error;
          // It has not said that it cannot.
          if (mayAnswerLater(error)) throw asPreceptorError(error, connection.where, "model");
        }
      }
      return null;
    },
    async close() {
      const error = fail("engine_failed", "the model was unloaded while this request was under way; send it again");
      health.stop();
      pool.close(error);
      closed.abort(error);
    },
  };
}

const TOKENIZE_TIMEOUT_MS = 10_000;
