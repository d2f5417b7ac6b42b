import { deferred } from "../../deferred.ts";
import { fail } from "../../errors.ts";
import { type PassingError, passes, pauseMs } from "../patience.ts";

/**
 * Explanations in the background: a few are worked on, the others wait for a place. Those who wait are an id each; their
 * texts stay in the database and their models out of memory until it is their turn.
 */
export interface BackgroundQueue {
  /**
   * Runs what makes one join (it writes it down and calls `run`). Throws `queue_full` where enough wait already; what was
   * accepted before a restart joins without being asked.
   */
  accept<T>(join: () => Promise<T>): Promise<T>;
  /** Does `work` when a place is free, and again later when it throws what passes. Throws `cancelled` when `signal` fires. */
  run(who: { id: string; client: string; signal: AbortSignal }, work: () => Promise<void>): Promise<void>;
  /** Where everybody who waits stands, by id. */
  places(): ReadonlyMap<string, BackgroundPlace>;
}

/** Position 1 is next. "background": all places are taken; otherwise the error that sent it back to wait. */
export interface BackgroundPlace {
  position: number;
  reason: "background" | PassingError["code"];
}

export interface BackgroundLimits {
  places?: number;
  waiting?: number;
}

/**
 * Worked on at once: while one is loaded, tokenised or written down the others keep the engine's batch filled. Each holds
 * a teacher and maybe a student in memory, so more would drive the models of interactive requests out.
 */
const PLACES = 4;
/** At half a minute each on a small machine four at a time need two hours for these: who sends more has a dataset. */
export const MAX_BACKGROUND = 1_000;
/** About how often a place becomes free. */
const RETRY_AFTER_SECONDS = 10;

interface Entry {
  id: string;
  client: string;
  arrival: number;
  reason: BackgroundPlace["reason"];
  /** False while it was told to come back later. */
  ready: boolean;
  begin: () => void;
}

export function createBackgroundQueue(limits: BackgroundLimits = {}): BackgroundQueue {
  const { places = PLACES, waiting: most = MAX_BACKGROUND } = limits;
  const waiting = new Set<Entry>();
  const working = new Set<Entry>();
  let accepting = 0;
  let arrivals = 0;

  /** Clients take turns: everybody's first, then everybody's second …; what a client has under way counts as its first. */
  function inOrder(): Entry[] {
    const turns = new Map<string, number>();
    const turnOf = ({ client }: Entry): number => {
      const turn = turns.get(client) ?? 0;
      turns.set(client, turn + 1);
      return turn;
    };
    for (const entry of working) turnOf(entry);
    return [...waiting]
      .sort((a, b) => a.arrival - b.arrival)
      .map((entry) => ({ entry, turn: turnOf(entry) }))
      .sort((a, b) => a.turn - b.turn)
      .map(({ entry }) => entry);
  }

  function fill(): void {
    if (working.size >= places) return;
    for (const entry of inOrder()) {
      if (entry.ready) entry.begin();
      if (working.size >= places) return;
    }
  }

  /** Resolves when it has a place. */
  function turn(entry: Entry, signal: AbortSignal): Promise<void> {
    const begun = deferred<void>();
    const leave = (): void => {
      waiting.delete(entry);
      begun.reject(fail("cancelled", "it was cancelled while it waited"));
    };
    entry.begin = () => {
      signal.removeEventListener("abort", leave);
      waiting.delete(entry);
      working.add(entry);
      begun.resolve();
    };
    if (signal.aborted) leave();
    else {
      signal.addEventListener("abort", leave, { once: true });
      waiting.add(entry);
      fill();
    }
    return begun.promise;
  }

  function putOff(entry: Entry, error: PassingError): void {
    entry.reason = error.code;
    entry.ready = false;
    const comeBack = (): void => {
      entry.ready = true;
      fill();
    };
    setTimeout(comeBack, pauseMs(error)).unref();
  }

  return {
    async accept(join) {
      if (waiting.size + accepting >= most) {
        throw fail("queue_full", `${most} explanations wait in the background already; send it again later`, {
          retryAfterSeconds: RETRY_AFTER_SECONDS,
        });
      }
      accepting++;
      try {
        return await join();
      } finally {
        accepting--;
      }
    },

    async run({ id, client, signal }, work) {
      const entry: Entry = { id, client, arrival: arrivals++, reason: "background", ready: true, begin: () => {} };
      while (true) {
        await turn(entry, signal);
        try {
          return await work();
        } catch (error) {
          if (signal.aborted || !passes(error)) throw error;
          putOff(entry, error);
        } finally {
          working.delete(entry);
          fill();
        }
      }
    },

    places: () => new Map(inOrder().map(({ id, reason }, i) => [id, { position: i + 1, reason }])),
  };
}
