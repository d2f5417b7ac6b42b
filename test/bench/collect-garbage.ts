import { Session } from "node:inspector";
import { deferred } from "../../src/deferred.ts";

/** A worker answers between two computations; none of those here takes a second. */
const PATIENCE_MS = 10_000;

/**
 * Collects the garbage of this thread and of all workers, also those that a library keeps to itself: each has a heap of its
 * own, and only the inspector reaches it from outside. (A heap snapshot would too, and leaves tens of megabytes behind.)
 */
export function createGarbageCollector(): () => Promise<void> {
  const session = new Session();
  session.connect();
  const workers = new Set<string>();
  const answered = new Map<number, () => void>();
  let lastId = 0;
  session.on("NodeWorker.attachedToWorker", ({ params: { sessionId, workerInfo } }) => {
    // Node's own, which load modules: they sleep between two of them and do not answer.
    if (!workerInfo.url.startsWith("node:internal/")) workers.add(sessionId);
  });
  session.on("NodeWorker.detachedFromWorker", ({ params }) => void workers.delete(params.sessionId));
  session.on("NodeWorker.receivedMessageFromWorker", ({ params }) => {
    answered.get((JSON.parse(params.message) as { id: number }).id)?.();
  });
  session.post("NodeWorker.enable", { waitForDebuggerOnStart: false });

  const collectIn = async (sessionId: string): Promise<void> => {
    const id = ++lastId;
    const message = JSON.stringify({ id, method: "HeapProfiler.collectGarbage" });
    const { promise, resolve, reject } = deferred<void>();
    const timer = setTimeout(() => reject(new Error("a worker does not collect its garbage")), PATIENCE_MS);
    answered.set(id, resolve);
    session.post("NodeWorker.sendMessageToWorker", { sessionId, message }, (error) => error && reject(error));
    await promise.finally(() => clearTimeout(timer));
    answered.delete(id);
  };

  return async () => {
    session.post("HeapProfiler.collectGarbage");
    for (const worker of workers) await collectIn(worker);
  };
}
