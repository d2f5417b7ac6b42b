/**
 * One computation at a time in the whole process. Every model has a thread pool as wide as the machine; two that compute
 * at once wait for each other's threads at every barrier and both take several times as long. So a thread takes its turn
 * before each run (a decode step, a chunk: tens of milliseconds) and models alternate. A lock in shared memory, because
 * the threads that compute are blocked while they do and cannot be asked.
 */
import type { ComputeGuard } from "./exit-guard.ts";

const OWNER = 0;
const WAITING = 1;
const FREE = 0;

/** A missed wake-up costs at most this; the owner is looked at again then. */
const WAIT_MS = 100;
/** After its turn a thread leaves this much time to one that waits, or it would always be first itself. */
const HAND_OVER_MS = 1;

export interface Turns {
  /** For one worker thread, to be sent to it. */
  member(): Member;
  /** The thread has ended, perhaps in the middle of its turn. */
  leave(member: Member): void;
}

export interface Member {
  lock: Int32Array;
  id: number;
}

export function createTurns(): Turns {
  const lock = new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT));
  let members = 0;
  return {
    member: () => ({ lock, id: ++members }),
    leave({ id }) {
      if (Atomics.compareExchange(lock, OWNER, id, FREE) === id) Atomics.notify(lock, OWNER);
    },
  };
}

/** Worker's side: runs `work` in this thread's turn. */
export function takeTurns({ lock, id }: Member): ComputeGuard {
  function acquire(): void {
    while (true) {
      const owner = Atomics.compareExchange(lock, OWNER, FREE, id);
      if (owner === FREE) break;
      Atomics.add(lock, WAITING, 1);
      Atomics.wait(lock, OWNER, owner, WAIT_MS);
      Atomics.sub(lock, WAITING, 1);
    }
    // Whoever handed over goes on, and so do the others that wait, to wait again.
    Atomics.notify(lock, OWNER);
  }
  function release(): void {
    Atomics.store(lock, OWNER, FREE);
    Atomics.notify(lock, OWNER);
    if (Atomics.load(lock, WAITING) > 0) Atomics.wait(lock, OWNER, FREE, HAND_OVER_MS);
  }
  return (work) => {
    acquire();
    try {
      return work();
    } finally {
      release();
    }
  };
}
