import { createContext, Script } from "node:vm";

const context = createContext({ run: undefined as (() => void) | undefined });
const script = new Script("run()");

/**
 * Runs a synchronous function and interrupts it, wherever it is, after the limit. Returns undefined when it was
 * interrupted. For code whose length a model or a request decides.
 */
export function withTimeLimit<T>(limitMs: number, work: () => T): { value: T } | undefined {
  let result: { value: T } | undefined;
  context.run = () => {
    result = { value: work() };
  };
  try {
    script.runInContext(context, { timeout: limitMs });
  } catch (error) {
    if ((error as { code?: unknown }).code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return undefined;
    throw error;
  } finally {
    context.run = undefined;
  }
  return result;
}
