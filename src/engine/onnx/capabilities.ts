import type { Capabilities } from "../engine.ts";

/** What every model of this engine can do; `batch_invariant` is decided by the self-test when a model loads. */
export const CAPABILITIES: Capabilities = {
  sample: true,
  logprobs: true,
  exact_temperatures: null,
  topk: true,
  at_ids: true,
  distributions: true,
  adapters: true,
  train: false,
  batch_invariant: false,
};
