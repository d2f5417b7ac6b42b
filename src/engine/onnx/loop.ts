/**
 * Runs `tick` again and again while it reports work, yielding to the event loop in between so that aborts and new
 * requests are seen between two steps.
 */
export function createLoop(tick: () => boolean): { wake(): void; stop(): void } {
  let scheduled = false;
  let stopped = false;
  function run(): void {
    scheduled = false;
    if (!stopped && tick()) wake();
  }
  function wake(): void {
    if (scheduled || stopped) return;
    scheduled = true;
    setImmediate(run);
  }
  return {
    wake,
    stop() {
      stopped = true;
    },
  };
}
