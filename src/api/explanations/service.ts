import { setTimeout as sleep } from "node:timers/promises";
import { TOUCH_INTERVAL_MS } from "../../db/explanation-store.ts";
import type { ExplanationRecord, PageQuery } from "../../db/records.ts";
import { bodyOf, type ErrorBody, fail, PreceptorError } from "../../errors.ts";
import { type BeginDeps, begin, beginAgain, enqueue, generateRequest, type Run } from "./begin.ts";
import { type Generated, type GenerateEvents, generate } from "./generate.ts";
import { insist } from "./insist.ts";
import { storedSampling, toResource } from "./resource.ts";
import type { CreateExplanation, ExplanationResource } from "./schemas.ts";

export interface ExplanationService {
  /** Resolves when finished, or at once with `background`. `signal` stops the work, unless it runs in the background. */
  create(request: CreateExplanation, signal: AbortSignal): Promise<ExplanationResource>;
  /** Sends the events of a stream while it runs; throws what goes wrong. */
  stream(request: CreateExplanation, signal: AbortSignal, send: SendEvent): Promise<void>;
  get(id: string): Promise<ExplanationResource>;
  list(query: ExplanationQuery): Promise<{ data: ExplanationResource[]; hasMore: boolean }>;
  /** Stops it where it runs; what was written so far is kept. A finished one stays as it is. */
  cancel(id: string): Promise<ExplanationResource>;
  remove(id: string): Promise<void>;
  /**
   * Settles what a stopped server left unfinished: explanations in the background are taken up again, the others failed.
   * `exclusive`: nobody else uses this database, so all of it counts; otherwise what no server has touched for minutes
   * (then to be called again and again). Should two servers take up the same one, they write the same text, and the
   * first to finish wins.
   */
  settleInterrupted(options: { exclusive: boolean }): Promise<void>;
  /** Stops what is under way and waits until that is written down. */
  close(): Promise<void>;
}

export type SendEvent = (type: string, data: object) => Promise<void>;

export interface ExplanationQuery extends PageQuery {
  teacher?: string | undefined;
  status?: ExplanationResource["status"] | undefined;
}

export interface ExplanationServiceDeps extends BeginDeps {
  log: { error(details: object, message: string): void };
}

const NO_EVENTS: GenerateEvents = { delta() {}, choice() {}, scored() {} };
/** Where the model's error names no time. */
const RETRY_AFTER_MS = 5_000;

export function createExplanationService(deps: ExplanationServiceDeps): ExplanationService {
  const { store, log } = deps;
  const running = new Map<string, { controller: AbortController; finished: Promise<unknown> }>();
  const ending = new AbortController();
  const touch = setInterval(() => {
    store
      .touch([...running.keys()])
      .catch((error: unknown) => log.error({ err: error }, "touching explanations failed"));
  }, TOUCH_INTERVAL_MS).unref();

  /** Does the work where `cancel`, `remove` and `close` find it. */
  function underWay<T>(id: string, work: (controller: AbortController) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const result = work(controller).finally(() => running.delete(id));
    running.set(id, { controller, finished: result.catch(() => undefined) });
    return result;
  }

  /** Work in the background outlives this process: its row stays unfinished and the next start takes it up. */
  const staysForNextStart = (record: ExplanationRecord): boolean =>
    ending.signal.aborted && storedSampling(record).background;

  /** Writes the explanation and its end down, and gives the models back. Throws what ended it, unless it was cancelled. */
  async function carryOut(run: Run, signal: AbortSignal, events: GenerateEvents): Promise<ExplanationRecord> {
    try {
      const outcome = await generate(generateRequest(run, signal), events);
      const record = await finish(run, outcome, signal.aborted);
      if (outcome.failure && !signal.aborted) throw outcome.failure.error;
      return record;
    } finally {
      run.teacher.release();
      run.student?.release();
    }
  }

  async function finish(run: Run, outcome: Generated, cancelled: boolean): Promise<ExplanationRecord> {
    const { record, stored } = run;
    if (staysForNextStart(record)) return record;
    const { failure } = outcome;
    const changes = {
      status: cancelled ? ("cancelled" as const) : failure ? ("failed" as const) : ("completed" as const),
      choices: outcome.choices,
      best: outcome.best,
      usage: { ...record.usage, completion_tokens: outcome.completionTokens, scored_tokens: outcome.scoredTokens },
      error: failure && !cancelled ? shown(failure.error) : null,
    };
    const done = { ...record, ...changes };
    if (!stored) return done;
    try {
      // Final already: somebody else cancelled or deleted it.
      return await insist(
        async () => (await store.update(record.id, changes)) ?? (await store.find(record.id)) ?? done,
        ending.signal,
      );
    } catch (error) {
      // What ended it is what the caller must hear; a text that was not kept must not look as if it were.
      if (changes.status === "completed") throw error;
      log.error({ err: error, id: record.id }, "the end of an explanation could not be written down");
      return done;
    }
  }

  function inBackground(record: ExplanationRecord): void {
    const { id } = record;
    void underWay(id, async ({ signal }) => {
      try {
        const run = await patiently(() => beginAgain(deps, record, signal), signal);
        await beginWriting(run, signal);
      } catch (error) {
        if (staysForNextStart(record)) return;
        if (!signal.aborted) log.error({ err: error, id }, "an explanation in the background failed");
        const changes = signal.aborted
          ? { status: "cancelled" as const }
          : { status: "failed" as const, error: shown(error) };
        await store.update(id, changes).catch((reason: unknown) => {
          log.error({ err: reason, id }, "the end of an explanation could not be written down");
        });
      }
    });
  }

  async function beginWriting(run: Run, signal: AbortSignal): Promise<void> {
    let begun = false;
    try {
      // undefined: it was cancelled or deleted while it waited.
      begun = (await store.update(run.record.id, { status: "in_progress" })) !== undefined;
    } finally {
      if (!begun) {
        run.teacher.release();
        run.student?.release();
      }
    }
    if (begun) await carryOut(run, signal, NO_EVENTS);
  }

  async function find(id: string): Promise<ExplanationRecord> {
    const record = await store.find(id);
    if (!record) throw unknownExplanation(id);
    return record;
  }

  async function inForeground(run: Run, client: AbortSignal, events: GenerateEvents): Promise<ExplanationRecord> {
    const record = await underWay(run.record.id, (controller) => {
      follow(client, controller);
      return carryOut(run, controller.signal, events);
    });
    if (client.aborted) throw fail("cancelled", "the client closed the connection");
    return record;
  }

  return {
    async create(request, signal) {
      if (!request.background)
        return toResource(await inForeground(await begin(deps, request, signal), signal, NO_EVENTS));
      if (!request.store) {
        throw fail("invalid_value", "an explanation in the background must be stored: leave store out", {
          param: "store",
        });
      }
      const record = await enqueue(deps, request);
      inBackground(record);
      return toResource(record);
    },

    async stream(request, signal, send) {
      if (request.background) {
        throw fail("invalid_value", "choose one of stream and background", { param: "background" });
      }
      const tell: SendEvent = async (type, data) => {
        // A client that left ends the work by its signal, so that what was written until then is kept.
        if (signal.aborted) return;
        try {
          await send(type, data);
        } catch (error) {
          if (!signal.aborted) throw error;
        }
      };
      const run = await begin(deps, request, signal);
      const record = await inForeground(run, signal, {
        started: () => tell("explanation.created", { explanation: toResource(run.record) }),
        delta: (index, delta) => tell("explanation.delta", { index, delta }),
        choice: (index, finish_reason) => tell("explanation.choice", { index, finish_reason }),
        scored: (index, score) => tell("explanation.scored", { index, score }),
      });
      await send("explanation.completed", { explanation: toResource(record) });
    },

    get: async (id) => toResource(await find(id)),

    async list(query) {
      const { rows, hasMore } = await store.list(query);
      return { data: rows.map(toResource), hasMore };
    },

    async cancel(id) {
      const record = await find(id);
      const run = running.get(id);
      run?.controller.abort();
      await run?.finished;
      // One that does not run here belongs to a server that is gone, or finds out when it ends.
      if (!run) await store.update(id, { status: "cancelled" });
      return toResource((await store.find(id)) ?? record);
    },

    async remove(id) {
      const run = running.get(id);
      run?.controller.abort();
      await run?.finished;
      if (!(await store.remove(id))) throw unknownExplanation(id);
    },

    async settleInterrupted({ exclusive }) {
      for (const record of await store.listInterrupted({ exclusive })) {
        if (running.has(record.id)) continue;
        if (storedSampling(record).background) inBackground(record);
        else await store.update(record.id, { status: "failed", error: INTERRUPTED.toBody() });
      }
    },

    async close() {
      ending.abort();
      clearInterval(touch);
      const all = [...running.values()];
      for (const run of all) run.controller.abort();
      await Promise.allSettled(all.map((run) => run.finished));
    },
  };
}

const INTERRUPTED = fail(
  "interrupted",
  "the server stopped while it worked on this explanation; send the request again",
);

function unknownExplanation(id: string): PreceptorError {
  return fail("not_found", `there is no explanation ${JSON.stringify(id.slice(0, 80))}`);
}

const shown = (error: unknown): ErrorBody => bodyOf(error, "the server failed on this explanation");

function follow(client: AbortSignal, controller: AbortController): void {
  if (client.aborted) controller.abort();
  else client.addEventListener("abort", () => controller.abort(), { once: true });
}

/** Nobody waits for work in the background, so it comes back as often as its models ask it to. */
async function patiently<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
  while (true) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof PreceptorError) || error.code !== "model_loading") throw error;
      const { retryAfterSeconds } = error;
      await sleep(retryAfterSeconds === undefined ? RETRY_AFTER_MS : retryAfterSeconds * 1000, undefined, { signal });
    }
  }
}
