/** The sessions that are open: how many, how long without a call, and what memory they take. */
import { fail } from "../errors.ts";
import type { TrainingSession } from "./session.ts";

/** Each has a thread of its own and weights that stay in memory while nobody calls; more would only take turns. */
export const MAX_SESSIONS = 8;
/** A person who thinks, or a loop that computes elsewhere, comes back within the hour; one that crashed never does. */
export const SESSION_IDLE_MS = 3_600_000;
/** Who is refused for want of a place may find one when a session ends; they last minutes at least. */
const RETRY_AFTER_SECONDS = 30;

/** Weights, gradients and AdamW's two means, in float32. */
const BYTES_PER_PARAMETER = 4 * Float32Array.BYTES_PER_ELEMENT;

export interface PooledSession<Facts> {
  id: string;
  facts: Facts;
  session: TrainingSession;
  createdAt: Date;
  /** When it ends unless somebody calls. */
  expiresAt: Date;
}

export interface SessionPool<Facts> {
  /** Counts it before it is opened. Throws `too_many_sessions`, `out_of_memory`, and what `open` throws. */
  add(
    of: { id: string; parameters: number; facts: Facts },
    open: () => Promise<TrainingSession>,
  ): Promise<PooledSession<Facts>>;
  /** Throws `session_lost`. */
  get(id: string): PooledSession<Facts>;
  /** A session with a call under way does not become idle. Throws `session_lost`, also where it ends meanwhile. */
  use<T>(id: string, call: (entry: PooledSession<Facts>) => Promise<T>): Promise<T>;
  /** The oldest first. */
  list(): PooledSession<Facts>[];
  remove(id: string): Promise<void>;
  /** Ends those that have been idle for too long. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

export interface SessionPoolDeps {
  /** Bytes that loaded models, and here the sessions together, may take. */
  budgetBytes: number;
  now: () => Date;
  maxSessions?: number;
  idleMs?: number;
}

interface Place {
  bytes: number;
}

interface Entry<Facts> extends PooledSession<Facts> {
  place: Place;
  calls: number;
  ended: boolean;
}

export function createSessionPool<Facts>(deps: SessionPoolDeps): SessionPool<Facts> {
  const { budgetBytes, now, maxSessions = MAX_SESSIONS, idleMs = SESSION_IDLE_MS } = deps;
  const entries = new Map<string, Entry<Facts>>();
  /** Sessions that are being opened have theirs already, those that are being closed still have it. */
  const places = new Set<Place>();
  let closed = false;

  function takePlace(parameters: number): Place {
    if (closed) throw draining();
    if (places.size >= maxSessions) {
      throw fail(
        "too_many_sessions",
        `${places.size} training sessions are open, which is the limit; DELETE one that is no longer needed`,
        { retryAfterSeconds: RETRY_AFTER_SECONDS },
      );
    }
    const bytes = parameters * BYTES_PER_PARAMETER;
    const taken = [...places].reduce((sum, place) => sum + place.bytes, 0);
    if (taken + bytes > budgetBytes) throw tooLarge(parameters, bytes, taken, budgetBytes);
    const place = { bytes };
    places.add(place);
    return place;
  }

  function touch(entry: Entry<Facts>): void {
    entry.expiresAt = new Date(now().getTime() + idleMs);
  }

  const isIdle = ({ calls, expiresAt }: Entry<Facts>): boolean => calls === 0 && expiresAt <= now();

  function get(id: string): Entry<Facts> {
    const entry = entries.get(id);
    if (!entry || isIdle(entry)) throw lost(id);
    return entry;
  }

  async function end(entry: Entry<Facts>): Promise<void> {
    entry.ended = true;
    entries.delete(entry.id);
    await entry.session.close();
    places.delete(entry.place);
  }

  return {
    async add({ id, parameters, facts }, open) {
      const place = takePlace(parameters);
      try {
        const session = await open();
        if (closed) {
          await session.close();
          throw draining();
        }
        const createdAt = now();
        const entry = { id, facts, session, createdAt, expiresAt: createdAt, place, calls: 0, ended: false };
        touch(entry);
        entries.set(id, entry);
        return entry;
      } catch (error) {
        places.delete(place);
        throw error;
      }
    },
    get,
    async use(id, call) {
      const entry = get(id);
      entry.calls++;
      try {
        return await call(entry);
      } catch (error) {
        throw entry.ended ? lost(id) : error;
      } finally {
        entry.calls--;
        touch(entry);
      }
    },
    list: () => [...entries.values()].filter((entry) => !isIdle(entry)),
    remove: async (id) => end(get(id)),
    async sweep() {
      await Promise.all([...entries.values()].filter(isIdle).map(end));
    },
    async close() {
      closed = true;
      await Promise.all([...entries.values()].map(end));
    },
  };
}

function lost(id: string): Error {
  return fail(
    "session_lost",
    `the training session ${id.slice(0, 40)} is not open: sessions end with DELETE, at a restart of the server and after ` +
      `${SESSION_IDLE_MS / 60_000} minutes without a call. Create another and go on from what you saved`,
  );
}

function draining(): Error {
  return fail("draining", "the server is shutting down; send the request again in a moment", { retryAfterSeconds: 5 });
}

function tooLarge(parameters: number, bytes: number, taken: number, budget: number): Error {
  const others = taken > 0 ? `, other sessions take ${mib(taken)}` : "";
  return fail(
    "out_of_memory",
    `training ${parameters} parameters takes ${mib(bytes)} (weights, gradients and the optimizer's two means, 4 bytes each)` +
      `${others}, and PRECEPTOR_MODEL_MEMORY allows ${mib(budget)}. Raise it, or train an adapter (lora) of low rank`,
  );
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
