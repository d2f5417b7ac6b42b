import { setTimeout as delay } from "node:timers/promises";
import type { EngineModel, SampleEvent } from "../../src/engine/engine.ts";

/** What an engine has sampled, by its seed, so that it can be had again without computing. */
export type Recording = Map<number, SampleEvent[]>;

export function recording(model: EngineModel, into: Recording): EngineModel {
  return {
    ...model,
    async *sample(request) {
      const events: SampleEvent[] = [];
      for await (const event of model.sample(request)) {
        events.push(event);
        yield event;
      }
      into.set(request.seed, events);
    },
  };
}

/** Stands for an engine elsewhere: so many tokens a second, of all streams together; without a rate as fast as asked. */
export function replaying(model: EngineModel, from: Recording, tokensPerSecond: number | null): EngineModel {
  const pace = tokensPerSecond === null ? async () => undefined : createPace(tokensPerSecond);
  return {
    ...model,
    async *sample(request) {
      const drawn: number[][] = [];
      for (const event of from.get(request.seed)!) {
        if (event.type === "token") {
          await pace();
          // The text is built by whoever is asked whether it ends here.
          const ids = [...(drawn[event.index] ?? []), event.id];
          drawn[event.index] = ids;
          request.shouldStop?.(event.index, ids);
        }
        yield event;
      }
    },
  };
}

/** Reads nothing: what a teacher is asked for beside its explanations belongs to scoring, or to a machine elsewhere. */
export function unread(model: EngineModel): EngineModel {
  return {
    ...model,
    logprobs: async ({ sequences }) =>
      sequences.map(({ ids, from = 1, to = ids.length }) => ({
        from,
        to,
        cachedTokens: 0,
        logprobs: new Float32Array(to - from),
      })),
  };
}

/** Adds up the tokens that are read: stages that are compared must have done the same work. */
export function counting(model: EngineModel, read: (tokens: number) => void): EngineModel {
  return {
    ...model,
    logprobs(request) {
      read(request.sequences.reduce((sum, { ids }) => sum + ids.length, 0));
      return model.logprobs(request);
    },
  };
}

/** Turns in the order of asking. Timers are no finer than a millisecond, so turns due already are taken at once. */
function createPace(perSecond: number): () => Promise<void> {
  const everyMs = 1_000 / perSecond;
  let next = 0;
  return async () => {
    const now = performance.now();
    next = Math.max(next, now) + everyMs;
    if (next - now >= 1) await delay(next - now);
  };
}
