/** A worker thread that computes: it takes turns with the others, is not cut off in the middle of a run, and its death is told. */
import { fail, PreceptorError } from "../../errors.ts";
import { createPeer, type Handlers, type Peer } from "../../thread/peer.ts";
import { spawnWorker } from "../../thread/spawn.ts";
import { createExitFlags } from "./exit-guard.ts";
import type { Member, Turns } from "./turns.ts";

export interface ComputeThread {
  peer: Peer;
  /** To be handed to it: its place in turns.ts and its flags of exit-guard.ts. */
  member: Member;
  exitFlags: Int32Array;
  /** Asks it to end itself (terminating it in the middle of a computation would abort the process) and waits until it has. */
  close(reason: PreceptorError): Promise<void>;
  /** What a call that failed is told: its own error, or that the thread has died. */
  asError(error: unknown): PreceptorError;
}

export function startThread(script: URL, turns: Turns, handlers: Handlers, what: string): ComputeThread {
  const died = (cause: unknown): PreceptorError =>
    fail("engine_failed", `the thread that computes this ${what} has stopped; send the request again`, { cause });
  const { flags, release } = createExitFlags();
  const member = turns.member();
  const worker = spawnWorker(script);
  // Before the peer's own listeners, so that what callers see is this error and not a bare exit code.
  worker.on("error", (cause) => peer.fail(died(cause)));
  const exited = new Promise<void>((resolve) => {
    worker.on("exit", () => {
      peer.fail(died(undefined));
      release();
      turns.leave(member);
      resolve();
    });
  });
  const peer = createPeer(worker, handlers);
  return {
    peer,
    member,
    exitFlags: flags,
    async close(reason) {
      peer.call("close", null).catch(() => undefined);
      peer.fail(reason);
      await exited;
    },
    asError: (error) => (error instanceof PreceptorError ? error : died(error)),
  };
}
