import type { Worker } from "node:worker_threads";
import { fail, type PreceptorError } from "../errors.ts";
import { createPeer, type Peer } from "../thread/peer.ts";

/**
 * A worker thread that is given one call at a time, so that a call which runs too long, or kills the thread, fails alone:
 * the thread is replaced and the next call goes to the new one.
 */
export interface SerialWorker {
  /** @param limitMs from the moment the worker gets the call */
  call<T>(method: string, params: unknown, limitMs: number): Promise<T>;
  /** Rejects what waits and ends the thread. */
  close(): Promise<void>;
}

interface Thread {
  worker: Worker;
  peer: Peer;
  dead: boolean;
}

export function createSerialWorker(deps: { spawn: () => Worker }): SerialWorker {
  let thread: Thread | undefined;
  let last: Promise<unknown> = Promise.resolve();
  let closed = false;

  /** The thread, started and ready: its start is not charged to a call. */
  async function current(): Promise<Thread> {
    if (thread && !thread.dead) return thread;
    const worker = deps.spawn();
    const started: Thread = { worker, peer: createPeer(worker, {}), dead: false };
    const die = (): void => {
      started.dead = true;
    };
    worker.once("error", die).once("exit", die);
    thread = started;
    await started.peer.call("ready", null);
    return started;
  }

  async function run<T>(method: string, params: unknown, limitMs: number): Promise<T> {
    if (closed) throw closing();
    let timer: NodeJS.Timeout | undefined;
    let slow = false;
    try {
      const { peer } = await current();
      const tooLong = new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          slow = true;
          reject(new Error("time limit"));
        }, limitMs);
      });
      return await Promise.race([peer.call<T>(method, params), tooLong]);
    } catch (error) {
      if (closed) throw closing();
      if (!slow && !thread?.dead) throw error;
      await replace();
      throw slow ? tookTooLong(limitMs) : crashed(error);
    } finally {
      clearTimeout(timer);
    }
  }

  async function replace(): Promise<void> {
    const old = thread;
    thread = undefined;
    old?.peer.fail(new Error("the text worker was replaced"));
    await old?.worker.terminate();
  }

  return {
    call(method, params, limitMs) {
      const result = last.then(() => run(method, params, limitMs)) as Promise<never>;
      last = result.catch(() => undefined);
      return result;
    },
    async close() {
      closed = true;
      const open = thread;
      thread = undefined;
      open?.peer.fail(closing());
      await open?.worker.terminate();
    },
  };
}

const tookTooLong = (limitMs: number): PreceptorError =>
  fail("invalid_value", `the text took more than ${Math.round(limitMs / 1000)} s to tokenise; send a shorter one`);

const crashed = (cause: unknown): PreceptorError =>
  fail("out_of_memory", "the text worker ran out of memory or crashed on this text; send a shorter one", { cause });

const closing = (): PreceptorError => fail("draining", "the server is shutting down; try again later");
