import type { Caller, QueuePlace } from "../../caller.ts";
import { TOUCH_INTERVAL_MS } from "../../db/explanation-store.ts";
import type { ExplanationRecord, PageQuery } from "../../db/records.ts";
import { bodyOf, type ErrorBody, fail, type PreceptorError } from "../../errors.ts";
import { passes } from "../patience.ts";
import { type BackgroundLimits, createBackgroundQueue } from "./background-queue.ts";
import { type BeginDeps, begin, beginAgain, enqueue, generateRequest, type Run } from "./begin.ts";
import { type Generated, type GenerateEvents, generate } from "./generate.ts";
import { insist } from "./insist.ts";
import { isUnfinished, storedSampling, toResource } from "./resource.ts";
import type { CreateExplanation, ExplanationResource } from "./schemas.ts";

export interface ExplanationService {
  /**
   * Resolves when finished, or at once with `background`. The caller's signal stops the work, unless it runs in the
   * background. Throws `queue_full` and `overloaded` where too much is to be done already; then nothing is kept.
   */
  create(request: CreateExplanation, caller: Caller): Promise<ExplanationResource>;
  /** Sends the events of a stream while it runs; throws what goes wrong. */
  stream(request: CreateExplanation, caller: Caller, send: SendEvent): Promise<void>;
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
  /** How many wait in the background, for metrics. */
  waiting(): number;
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
  background?: BackgroundLimits;
}

const NO_EVENTS: GenerateEvents = { delta() {}, choice() {}, scored() {} };
/** Who asked for what was written down before clients were. */
const UNKNOWN_CLIENT = "unknown";

export function createExplanationService(deps: ExplanationServiceDeps): ExplanationService {
  const { store, log } = deps;
  const queue = createBackgroundQueue(deps.background);
  /** Whatever is under way here or waits for it, to be found by its id. */
  const running = new Map<string, { controller: AbortController; finished: Promise<unknown> }>();
  /** Those that have begun, but wait in an engine. */
  const inEngine = new Map<string, QueuePlace>();
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
  async function carryOut(run: Run, caller: Caller, events: GenerateEvents): Promise<ExplanationRecord> {
    const { id } = run.record;
    const { signal } = caller;
    try {
      const outcome = await generate(generateRequest(run, caller), {
        ...events,
        queued(place) {
          inEngine.set(id, place);
          return events.queued?.(place);
        },
        prompt: () => void inEngine.delete(id),
      });
      const { failure } = outcome;
      if (failure && !outcome.accepted && passes(failure.error)) {
        await forget(run);
        throw failure.error;
      }
      const record = await finish(run, outcome, signal.aborted);
      if (failure && !signal.aborted) throw failure.error;
      return record;
    } finally {
      inEngine.delete(id);
      run.teacher.release();
      run.student?.release();
    }
  }

  /** The engine refused it: the caller asks again, and work in the background stays in the queue. */
  async function forget({ record, stored }: Run): Promise<void> {
    if (!stored || storedSampling(record).background) return;
    await store.remove(record.id).catch((error: unknown) => {
      log.error({ err: error, id: record.id }, "a refused explanation could not be removed");
    });
  }

  async function finish(run: Run, outcome: Generated, cancelled: boolean): Promise<ExplanationRecord> {
    const { record, stored } = run;
    if (staysForNextStart(record)) return record;
    const { failure } = outcome;
    const changes = {
      status: cancelled ? ("cancelled" as const) : failure ? ("failed" as const) : ("completed" as const),
      choices: outcome.choices,
      best: outcome.best,
      usage: {
        ...record.usage,
        completion_tokens: outcome.completionTokens,
        cached_tokens: outcome.cachedTokens,
        scored_tokens: outcome.scoredTokens,
      },
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
    const { client = UNKNOWN_CLIENT } = storedSampling(record);
    void underWay(id, async ({ signal }) => {
      try {
        await queue.run({ id, client, signal }, () => takeUp(id, { client, priority: "job", signal }));
      } catch (error) {
        if (ending.signal.aborted) return;
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

  /** Its turn has come. It is read again: while it waited only its id was kept, and somebody may have cancelled it. */
  async function takeUp(id: string, caller: Caller): Promise<void> {
    const record = await store.find(id);
    if (!record || !isUnfinished(record)) return;
    caller.signal.throwIfAborted();
    const run = await beginAgain(deps, record, caller.signal);
    let begun = false;
    try {
      // undefined: it was cancelled or deleted while its models were loaded.
      begun = (await store.update(id, { status: "in_progress" })) !== undefined;
    } finally {
      if (!begun) {
        run.teacher.release();
        run.student?.release();
      }
    }
    if (begun) await carryOut(run, caller, NO_EVENTS);
  }

  async function find(id: string): Promise<ExplanationRecord> {
    const record = await store.find(id);
    if (!record) throw unknownExplanation(id);
    return record;
  }

  async function inForeground(run: Run, caller: Caller, events: GenerateEvents): Promise<ExplanationRecord> {
    const record = await underWay(run.record.id, (controller) => {
      follow(caller.signal, controller);
      return carryOut(run, { ...caller, signal: controller.signal }, events);
    });
    if (caller.signal.aborted) throw fail("cancelled", "the client closed the connection");
    return record;
  }

  /** As the API shows it, with its place where it waits on this server. */
  function describe(record: ExplanationRecord, places = queue.places()): ExplanationResource {
    return toResource(record, inEngine.get(record.id) ?? places.get(record.id));
  }

  return {
    async create(request, caller) {
      if (!request.background) {
        return toResource(await inForeground(await begin(deps, request, caller.signal), caller, NO_EVENTS));
      }
      if (!request.store) {
        throw fail("invalid_value", "an explanation in the background must be stored: leave store out", {
          param: "store",
        });
      }
      return queue.accept(async () => {
        const record = await enqueue(deps, request, caller);
        inBackground(record);
        return describe(record);
      });
    },

    async stream(request, caller, send) {
      const { signal } = caller;
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
      const record = await inForeground(run, caller, {
        accepted: () => tell("explanation.created", { explanation: toResource(run.record) }),
        queued: (place) => tell("explanation.queued", place),
        delta: (index, delta) => tell("explanation.delta", { index, delta }),
        choice: (index, finish_reason) => tell("explanation.choice", { index, finish_reason }),
        scored: (index, score) => tell("explanation.scored", { index, score }),
      });
      await send("explanation.completed", { explanation: toResource(record) });
    },

    get: async (id) => describe(await find(id)),

    async list(query) {
      const { rows, hasMore } = await store.list(query);
      const places = queue.places();
      return { data: rows.map((row) => describe(row, places)), hasMore };
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

    waiting: () => queue.places().size,

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
