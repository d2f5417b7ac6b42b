import type { ModelLoad } from "./engine/engine.ts";
import type { Metrics } from "./http/metrics.ts";

/** How busy the loaded models are, at `/metrics`. Counters outlive the models: what an unloaded one had counted stays. */
export interface LoadMetrics {
  /** The last numbers of a model that has left memory. */
  unloaded(load: ModelLoad): void;
}

type Gauge = "bytes" | "active" | "waiting" | "scoring" | "prefixBytes";
type Total = "computedTokens" | "cachedTokens";

export function createLoadMetrics(
  metrics: Pick<Metrics, "gauge" | "total">,
  loaded: () => readonly (ModelLoad & { bytes: number })[],
): LoadMetrics {
  const gone: Record<Total, number> = { computedTokens: 0, cachedTokens: 0 };
  const highest: Record<Total, number> = { computedTokens: 0, cachedTokens: 0 };
  const sum = (what: Gauge | Total): number => loaded().reduce((total, model) => total + model[what], 0);
  const gauge = (name: string, help: string, what: Gauge): void => metrics.gauge(name, help, () => sum(what));
  const total = (name: string, help: string, what: Total): void =>
    metrics.total(name, help, () => {
      // While a model leaves, its last numbers may stand nowhere for a moment; a counter that falls means a restart.
      highest[what] = Math.max(highest[what], gone[what] + sum(what));
      return highest[what];
    });

  metrics.gauge("preceptor_models_loaded", "Models in memory", () => loaded().length);
  gauge("preceptor_models_bytes", "Bytes that loaded models take", "bytes");
  gauge("preceptor_sequences_active", "Sequences being decoded", "active");
  gauge("preceptor_sequences_waiting", "Sequences waiting to be decoded", "waiting");
  gauge("preceptor_scoring_active", "Texts being scored, and waiting for it", "scoring");
  gauge("preceptor_prefix_cache_bytes", "Bytes of the prefix caches", "prefixBytes");
  total("preceptor_prompt_tokens_computed_total", "Prompt tokens that had to be computed", "computedTokens");
  total("preceptor_prompt_tokens_cached_total", "Prompt tokens that the prefix caches had", "cachedTokens");
  return {
    unloaded({ computedTokens, cachedTokens }) {
      gone.computedTokens += computedTokens;
      gone.cachedTokens += cachedTokens;
    },
  };
}
