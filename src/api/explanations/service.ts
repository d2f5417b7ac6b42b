import { type ExplanationStore, TOUCH_INTERVAL_MS } from "../../db/explanation-store.ts";
import type { ExplanationRecord, PageQuery } from "../../db/records.ts";
import { fail, PreceptorError } from "../../errors.ts";
import type { ModelRegistry } from "../models/registry.ts";
import { begin, beginAgain, generateRequest, type Run } from "./begin.ts";
import { type Generated, type GenerateEvents, generate } from "./generate.ts";
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
   * `exclusive`: nobody else uses this database, so all of it counts; otherwise what no server has touched for minutes.
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

export interface ExplanationServiceDeps {
  registry: ModelRegistry;
  store: ExplanationStore;
  now: () => Date;
  log: { error(details: object, message: string): void };
}

const NO_EVENTS: GenerateEvents = { delta() {}, choice() {}, scored() {} };

export function createExplanationService(deps: ExplanationServiceDeps): ExplanationService {
  const { store, log } = deps;
  const running = new Map<string, { controller: AbortController; finished: Promise<unknown> }>();
  let closing = false;
  const touch = setInterval(() => {
    store
      .touch([...running.keys()])
      .catch((error: unknown) => log.error({ err: error }, "touching explanations failed"));
  }, TOUCH_INTERVAL_MS).unref();

  /** Writes the explanation and its end down. Never leaves a model held or, while the database answers, a row unfinished. */
  function carryOut(run: Run, events: GenerateEvents): Promise<ExplanationRecord> {
    const { record, controller, teacher, student } = run;
    const work = (async () => {
      try {
        return await finish(run, await generate(generateRequest(run), events));
      } catch (error) {
        await finishFailed(run, error);
        throw error;
      } finally {
        teacher.release();
        student?.release();
        running.delete(record.id);
      }
    })();
    running.set(record.id, { controller, finished: work.catch(() => undefined) });
    return work;
  }

  /** Work in the background outlives this process: its row stays unfinished and the next start takes it up. */
  const staysForNextStart = (run: Run): boolean => closing && run.stored && storedSampling(run.record).background;

  async function finish(run: Run, outcome: Generated): Promise<ExplanationRecord> {
    const { record } = run;
    if (staysForNextStart(run)) return record;
    const changes = {
      status: run.controller.signal.aborted ? ("cancelled" as const) : ("completed" as const),
      choices: outcome.choices,
      best: outcome.best,
      usage: { ...record.usage, completion_tokens: outcome.completionTokens, scored_tokens: outcome.scoredTokens },
    };
    const written = run.stored ? await store.update(record.id, changes) : undefined;
    return written ?? { ...record, ...changes };
  }

  async function finishFailed(run: Run, error: unknown): Promise<void> {
    if (!run.stored || staysForNextStart(run)) return;
    const cancelled = run.controller.signal.aborted;
    const changes = cancelled ? { status: "cancelled" as const } : { status: "failed" as const, error: bodyOf(error) };
    await store.update(run.record.id, changes).catch((reason: unknown) => {
      log.error({ err: reason, id: run.record.id }, "the end of an explanation could not be written down");
    });
  }

  async function inBackground(run: Run): Promise<void> {
    try {
      await store.update(run.record.id, { status: "in_progress" });
      await carryOut(run, NO_EVENTS);
    } catch (error) {
      if (!run.controller.signal.aborted) log.error({ err: error, id: run.record.id }, "background explanation failed");
    }
  }

  async function find(id: string): Promise<ExplanationRecord> {
    const record = await store.find(id);
    if (!record) throw unknownExplanation(id);
    return record;
  }

  async function takeUp(record: ExplanationRecord): Promise<void> {
    try {
      await inBackground(await beginAgain(deps, record));
    } catch (error) {
      log.error({ err: error, id: record.id }, "an interrupted explanation could not be taken up");
      await store.update(record.id, { status: "failed", error: bodyOf(error) });
    }
  }

  return {
    async create(request, signal) {
      if (request.background && !request.store) {
        throw fail("invalid_value", "an explanation in the background must be stored: leave store out", {
          param: "store",
        });
      }
      const run = await begin(deps, request, signal);
      if (request.background) {
        void inBackground(run);
        return toResource(run.record);
      }
      follow(signal, run.controller);
      const record = await carryOut(run, NO_EVENTS);
      if (signal.aborted) throw fail("cancelled", "the client closed the connection");
      return toResource(record);
    },

    async stream(request, signal, send) {
      if (request.background) {
        throw fail("invalid_value", "choose one of stream and background", { param: "background" });
      }
      const run = await begin(deps, request, signal);
      follow(signal, run.controller);
      const record = await carryOut(run, {
        started: () => send("explanation.created", { explanation: toResource(run.record) }),
        delta: (index, delta) => send("explanation.delta", { index, delta }),
        choice: (index, finish_reason) => send("explanation.choice", { index, finish_reason }),
        scored: (index, score) => send("explanation.scored", { index, score }),
      });
      if (signal.aborted) throw fail("cancelled", "the client closed the connection");
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
      // One that does not run here is queued, or belongs to a server that is gone.
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
        if (storedSampling(record).background) void takeUp(record);
        else await store.update(record.id, { status: "failed", error: bodyOf(INTERRUPTED) });
      }
    },

    async close() {
      closing = true;
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

function bodyOf(error: unknown): ReturnType<PreceptorError["toBody"]> {
  const known =
    error instanceof PreceptorError ? error : fail("internal_error", "the server failed on this explanation");
  return known.toBody();
}

function follow(signal: AbortSignal, controller: AbortController): void {
  if (signal.aborted) controller.abort();
  else signal.addEventListener("abort", () => controller.abort(), { once: true });
}
