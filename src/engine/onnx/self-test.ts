import { GROUP_RUN_SAMPLES } from "./limits.ts";
import type { Batch, SampleMessage } from "./protocol.ts";
import type { Scheduler } from "./scheduler.ts";

/** Tokens of the test: enough for a prompt chunk, its copy into a batch, and steps that read what earlier ones wrote. */
const PROMPT_TOKENS = 5;
const NEW_TOKENS = 4;
const COMPANIONS = 4;
/** Enough samples of one prompt for a run of their own, which reads it once for all. */
const GROUP = GROUP_RUN_SAMPLES;
/** Self-test requests use negative keys; callers' keys are positive. */
const KEY = -1;

/**
 * Is a sample the same to the bit alone, beside others and as one of a group? Kernels sum in an order that could depend on the number of
 * rows (engine.md 2.7), and this depends on the processor: so it is measured where it runs, once per load.
 */
export async function testInvariance(scheduler: Scheduler, vocabSize: number, contextLength: number): Promise<boolean> {
  const tokens = Math.min(NEW_TOKENS, contextLength - PROMPT_TOKENS);
  if (tokens < 1) return false;
  /** Tokens and log-probs of the first sample, as text. */
  const run = async (which: number, n: number): Promise<string> => {
    const events: Batch = [];
    await scheduler.sample(
      message(which, n, vocabSize, tokens),
      null,
      (batch) => void events.push(...batch),
      new AbortController().signal,
    );
    return JSON.stringify(events.filter((event) => event.type === "token" && event.index === 0));
  };
  try {
    const alone = await run(0, 1);
    const companions = Array.from({ length: COMPANIONS }, (_, i) => run(i + 1, 1));
    const together = await Promise.all([run(0, 1), run(0, GROUP), ...companions]);
    return together.slice(0, 2).every((sample) => sample === alone);
  } catch {
    // Weights that make no numbers of some token: whoever uses that token is told so; the others need not suffer.
    return false;
  }
}

function message(which: number, n: number, vocabSize: number, tokens: number): SampleMessage {
  return {
    key: KEY - which - (n > 1 ? COMPANIONS + 1 : 0),
    promptIds: Int32Array.from({ length: PROMPT_TOKENS }, (_, i) => (which * 7919 + i * 104_729 + 1) % vocabSize),
    n,
    params: { temperature: 1, topP: 1, topK: 0, maxTokens: tokens },
    seed: which,
    stopIds: [],
    topLogprobs: 0,
    logprobsTemperature: 1,
    client: "",
    priority: "interactive",
    adapter: null,
  };
}
