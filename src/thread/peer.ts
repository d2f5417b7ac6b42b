import { setMaxListeners } from "node:events";
import type { MessagePort, TransferListItem, Worker } from "node:worker_threads";
import { type ErrorCode, PreceptorError } from "../errors.ts";

/**
 * Two threads that call each other by method name. Either side may call; a call can be aborted, and its handler may
 * emit values while it works (`stream`), waiting for the reader when it wants back-pressure.
 */
export interface Peer {
  /** Resolves with what the other side's handler returns; rejects with its error (PreceptorError survives the trip). */
  call<T>(method: string, params: unknown, options?: CallOptions): Promise<T>;
  /** Values the handler emits, in order. Leaving the loop aborts the handler. */
  stream<T>(method: string, params: unknown, options?: CallOptions): AsyncIterable<T>;
  /** Rejects everything under way (the thread died, or is being closed). */
  fail(error: Error): void;
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
  transfer?: readonly TransferListItem[];
}

export interface HandlerContext {
  /** Aborted when the caller lost interest. */
  signal: AbortSignal;
  /** Sends a value to a caller that used `stream`. The promise resolves when the reader asks for the next one. */
  emit(value: unknown, transfer?: readonly TransferListItem[]): Promise<void>;
}

// biome-ignore lint/suspicious/noExplicitAny: parameters cross a thread boundary; each handler states its own type
export type Handlers = Record<string, (params: any, context: HandlerContext) => unknown>;

/** Wraps a handler's result whose buffers should move instead of being copied. */
export class Transferred {
  readonly value: unknown;
  readonly list: readonly TransferListItem[];
  constructor(value: unknown, list: readonly TransferListItem[]) {
    this.value = value;
    this.list = list;
  }
}

type Message =
  | { kind: "call"; id: number; method: string; params: unknown }
  | { kind: "abort"; id: number }
  | { kind: "emit"; id: number; value: unknown }
  | { kind: "ready"; id: number }
  | { kind: "result"; id: number; value: unknown }
  | { kind: "error"; id: number; error: WireError };

interface WireError {
  message: string;
  code?: ErrorCode;
  param?: string | undefined;
  retryAfterSeconds?: number | undefined;
  stack?: string | undefined;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
  emitted?: (value: unknown) => void;
}

interface Running {
  controller: AbortController;
  /** Resolvers of emits the reader has not asked beyond yet. */
  waiting: (() => void)[];
}

export function createPeer(port: MessagePort | Worker, handlers: Handlers): Peer {
  const pending = new Map<number, Pending>();
  const running = new Map<number, Running>();
  let nextId = 1;
  let dead: Error | undefined;

  const post = (message: Message, transfer: readonly TransferListItem[] = []): void =>
    port.postMessage(message, transfer as TransferListItem[]);

  function start(
    method: string,
    params: unknown,
    options: CallOptions,
    emitted?: (value: unknown) => void,
  ): { id: number; done: Promise<unknown> } {
    const id = nextId++;
    const { signal } = options;
    const abort = (): void => post({ kind: "abort", id });
    const done = new Promise<unknown>((resolve, reject) => {
      if (dead) return reject(dead);
      pending.set(id, { resolve, reject, ...(emitted ? { emitted } : {}) });
      try {
        post({ kind: "call", id, method, params }, options.transfer);
      } catch (error) {
        // Something in it cannot be copied to another thread.
        pending.delete(id);
        throw error;
      }
      if (signal?.aborted) abort();
      else if (signal) {
        // One signal ends all calls of a request, and there may be many: that is no leak.
        setMaxListeners(0, signal);
        signal.addEventListener("abort", abort, { once: true });
      }
    }).finally(() => signal?.removeEventListener("abort", abort));
    return { id, done };
  }

  async function* stream<T>(method: string, params: unknown, options: CallOptions = {}): AsyncGenerator<T> {
    const values: T[] = [];
    let wake: (() => void) | undefined;
    let finished = false;
    let error: Error | undefined;
    const { id, done } = start(method, params, options, (value) => {
      values.push(value as T);
      wake?.();
    });
    done.then(
      () => {
        finished = true;
        wake?.();
      },
      (reason: Error) => {
        finished = true;
        error = reason;
        wake?.();
      },
    );
    try {
      while (true) {
        if (values.length > 0) {
          const value = values.shift() as T;
          yield value;
          if (!finished) post({ kind: "ready", id });
        } else if (finished) {
          if (error) throw error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      if (!finished) post({ kind: "abort", id });
    }
  }

  async function run(id: number, method: string, params: unknown): Promise<void> {
    const work: Running = { controller: new AbortController(), waiting: [] };
    running.set(id, work);
    try {
      const handler = handlers[method];
      if (!handler) throw new Error(`no handler for ${method}`);
      const result = await handler(params, {
        signal: work.controller.signal,
        emit: (value, transfer) => {
          post({ kind: "emit", id, value }, transfer);
          return new Promise((resolve) => {
            if (work.controller.signal.aborted) resolve();
            else work.waiting.push(resolve);
          });
        },
      });
      if (result instanceof Transferred) post({ kind: "result", id, value: result.value }, result.list);
      else post({ kind: "result", id, value: result });
    } catch (error) {
      post({ kind: "error", id, error: toWire(error) });
    } finally {
      running.delete(id);
    }
  }

  /** Tells a handler that nobody waits for it; an emit that waits for its reader waits no longer. */
  function stop(work: Running): void {
    work.controller.abort();
    for (const resolve of work.waiting.splice(0)) resolve();
  }

  port.on("message", (message: Message) => {
    switch (message.kind) {
      case "call":
        void run(message.id, message.method, message.params);
        return;
      case "abort": {
        const work = running.get(message.id);
        if (work) stop(work);
        return;
      }
      case "ready":
        running.get(message.id)?.waiting.shift()?.();
        return;
      case "emit":
        pending.get(message.id)?.emitted?.(message.value);
        return;
      case "result":
      case "error": {
        const entry = pending.get(message.id);
        pending.delete(message.id);
        if (message.kind === "result") entry?.resolve(message.value);
        else entry?.reject(fromWire(message.error));
      }
    }
  });

  function failAll(error: Error): void {
    dead ??= error;
    for (const entry of pending.values()) entry.reject(dead);
    pending.clear();
    for (const work of running.values()) stop(work);
  }
  // Only a Worker emits these; a MessagePort never does.
  port.on("error", failAll);
  // A message that cannot be read answers nobody: better that all fail than that one hangs.
  port.on("messageerror", failAll);
  port.on("exit", (code: number) => failAll(new Error(`worker thread exited with code ${code}`)));

  return {
    call: <T>(method: string, params: unknown, options: CallOptions = {}) =>
      start(method, params, options).done as Promise<T>,
    stream,
    fail: failAll,
  };
}

function toWire(error: unknown): WireError {
  if (error instanceof PreceptorError) {
    return {
      message: error.message,
      code: error.code,
      param: error.param,
      retryAfterSeconds: error.retryAfterSeconds,
      stack: error.stack,
    };
  }
  return error instanceof Error ? { message: error.message, stack: error.stack } : { message: String(error) };
}

function fromWire(wire: WireError): Error {
  const error = wire.code
    ? new PreceptorError(wire.code, wire.message, {
        param: wire.param,
        ...(wire.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: wire.retryAfterSeconds }),
      })
    : new Error(wire.message);
  if (wire.stack) error.stack = wire.stack;
  return error;
}
