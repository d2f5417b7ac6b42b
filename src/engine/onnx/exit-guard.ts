/**
 * A process that exits while a thread is inside ONNX Runtime aborts (SIGABRT): the binding throws a C++ exception that
 * nobody catches once its thread is being torn down. So the exit waits for the computation under way, and the thread
 * starts no further one. Two flags in shared memory, because nothing asynchronous runs during an exit.
 */

const COMPUTING = 0;
const EXITING = 1;

/** The longest a process may be held up; loading the largest models takes about this long. */
const EXIT_WAIT_MS = 10_000;

/** Runs blocking native work that must not be interrupted. */
export type ComputeGuard = <T>(work: () => T) => T;

const shared = new Set<Int32Array>();
let registered = false;

/** Caller's side: flags for one worker thread, to be passed to it; `release` once it has ended. */
export function createExitFlags(): { flags: Int32Array; release: () => void } {
  const flags = new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT));
  shared.add(flags);
  if (!registered) process.on("exit", waitForComputations);
  registered = true;
  return { flags, release: () => void shared.delete(flags) };
}

function waitForComputations(): void {
  for (const flags of shared) Atomics.store(flags, EXITING, 1);
  for (const flags of shared) Atomics.wait(flags, COMPUTING, 1, EXIT_WAIT_MS);
}

/** Worker's side. */
export function createComputeGuard(flags: Int32Array): ComputeGuard {
  return (work) => {
    Atomics.store(flags, COMPUTING, 1);
    try {
      if (Atomics.load(flags, EXITING) === 1) waitForTheEnd(flags);
      return work();
    } finally {
      Atomics.store(flags, COMPUTING, 0);
      Atomics.notify(flags, COMPUTING);
    }
  };
}

/** The process is going; this thread is ended while it sleeps. */
function waitForTheEnd(flags: Int32Array): void {
  Atomics.store(flags, COMPUTING, 0);
  Atomics.notify(flags, COMPUTING);
  Atomics.wait(flags, EXITING, 1);
}
