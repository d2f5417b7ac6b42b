import type { Priority, QueueReason } from "./engine/engine.ts";

/** Who asks for something, how urgent it is, and what ends it: every engine call made for it is told all three. */
export interface Caller {
  /** As `http/client.ts` names it: what different clients wait for they get in turn. */
  client: string;
  priority: Priority;
  /** Aborted when the client has gone, or somebody cancelled. */
  signal: AbortSignal;
}

/** Where something stands that waits in an engine: position 1 is next. */
export interface QueuePlace {
  position: number;
  reason: QueueReason;
}
