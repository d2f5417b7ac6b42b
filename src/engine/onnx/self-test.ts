import type { Batch, SampleMessage } from "./protocol.ts";
import type { Scheduler } from "./scheduler.ts";

/** Tokens of the test: enough for a prompt chunk, its copy into a batch, and steps that read what earlier ones wrote. */
const PROMPT_TOKENS = 5;
const NEW_TOKENS = 4;
const COMPANIONS = 4;
/** Self-test requests use negative keys; callers' keys are positive. */
const KEY = -1;

/**
 * Is a sample the same to the bit alone and beside others? Kernels sum in an order that could depend on the number of
 * rows (engine.md 2.7), and this depends on the processor: so it is measured where it runs, once per load.
 */
export async function testInvariance(scheduler: Scheduler, vocabSize: number, contextLength: number): Promise<boolean> {
  const tokens = Math.min(NEW_TOKENS, contextLength - PROMPT_TOKENS);
  if (tokens < 1) return false;
  const run = async (which: number): Promise<Batch> => {
    const events: Batch = [];
    await scheduler.sample(
      message(which, vocabSize, tokens),
      null,
      (batch) => void events.push(...batch),
      new AbortController().signal,
    );
    return events;
  };
  try {
    const alone = await run(0);
    const together = await Promise.all(Array.from({ length: COMPANIONS + 1 }, (_, which) => run(which)));
    return JSON.stringify(alone) === JSON.stringify(together[0]);
  } catch {
    // Weights that make no numbers of some token: whoever uses that token is told so; the others need not suffer.
    return false;
  }
}

function message(which: number, vocabSize: number, tokens: number): SampleMessage {
  return {
    key: KEY - which,
    promptIds: Int32Array.from({ length: PROMPT_TOKENS }, (_, i) => (which * 7919 + i * 104_729 + 1) % vocabSize),
    n: 1,
    params: { temperature: 1, topP: 1, topK: 0, maxTokens: tokens },
    seed: which,
    stopIds: [],
    topLogprobs: 0,
    logprobsTemperature: 1,
    adapter: null,
  };
}
