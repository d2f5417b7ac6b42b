import { expect, test } from "vitest";
import type { ModelLoad } from "../../src/engine/engine.ts";
import { createApp } from "../../src/http/app.ts";
import { createMetrics } from "../../src/http/metrics.ts";
import { createLoadMetrics } from "../../src/load-metrics.ts";

const load = (computedTokens: number, cachedTokens: number): ModelLoad & { bytes: number } => ({
  bytes: 1_000,
  active: 2,
  waiting: 3,
  scoring: 4,
  computedTokens,
  cachedTokens,
  prefixBytes: 500,
});

function setUp() {
  const metrics = createMetrics();
  let loaded = [load(100, 10), load(20, 5)];
  const loads = createLoadMetrics(metrics, () => loaded);
  const app = createApp({ routes: [], authenticate: null, metrics });
  const scrape = async (...names: string[]): Promise<number[]> => {
    const text = await (await app.request("http://127.0.0.1/metrics")).text();
    return names.map((name) => Number(text.match(new RegExp(`^preceptor_${name} (\\d+)$`, "m"))?.[1]));
  };
  const models = (now: typeof loaded): void => {
    loaded = now;
  };
  return { loads, scrape, models };
}

test("what loaded models say of themselves, added up", async () => {
  const { scrape } = setUp();
  expect(await scrape("models_loaded", "models_bytes", "prefix_cache_bytes")).toEqual([2, 2_000, 1_000]);
  expect(await scrape("sequences_active", "sequences_waiting", "scoring_active")).toEqual([4, 6, 8]);
  const totals = ["prompt_tokens_computed_total", "prompt_tokens_cached_total"];
  // A counter is read, not added to: asking twice changes nothing.
  expect(await scrape(...totals)).toEqual([120, 15]);
  expect(await scrape(...totals)).toEqual([120, 15]);
});

test("counters never fall: what a model had counted stays when it leaves, and one that comes back begins at 0", async () => {
  const { loads, scrape, models } = setUp();
  const totals = ["prompt_tokens_computed_total", "prompt_tokens_cached_total"];
  expect(await scrape(...totals)).toEqual([120, 15]);
  // Between the end of its thread and the word of it the model stands nowhere.
  models([load(20, 5)]);
  expect(await scrape(...totals)).toEqual([120, 15]);
  loads.unloaded(load(130, 12));
  expect(await scrape(...totals)).toEqual([150, 17]);
  models([load(20, 5), load(1, 1)]);
  expect(await scrape(...totals)).toEqual([151, 18]);
  expect(await scrape("models_loaded", "prefix_cache_bytes")).toEqual([2, 1_000]);
});
