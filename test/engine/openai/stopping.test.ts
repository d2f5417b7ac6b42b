/** What ends with a request, and what a server that is silent may hold up. */
import { getEventListeners } from "node:events";
import { expect, test, vi } from "vitest";
import { connect, fake, PROMPT, sampleAll, score } from "./fixture.ts";

vi.mock("../../../src/engine/openai/limits.ts", async (original) => {
  return { ...(await original<object>()), QUESTION_TIMEOUT_MS: 100 };
});

test("a request leaves nothing at the signals that outlive it", async () => {
  const { model } = await connect([await fake({ maxLogprobs: -1 })]);
  const listened = vi.spyOn(EventTarget.prototype, "addEventListener");
  const any = vi.spyOn(AbortSignal, "any");
  const { signal } = new AbortController();
  const all = async (): Promise<Set<EventTarget>> => {
    listened.mockClear();
    await sampleAll(model, { signal });
    await score(model, PROMPT, { signal });
    const distributions = model.distributions({ ids: PROMPT, from: 1, to: 3, temperature: 1, signal });
    for await (const rows of distributions) expect(rows).toHaveLength(2 * model.vocabSize);
    return new Set(listened.mock.contexts as EventTarget[]);
  };
  const [first, second] = [await all(), await all()];
  listened.mockRestore();
  const lasting = [...first].filter((target) => second.has(target));
  // The caller's, and the one that ends everything when the model is closed.
  expect(lasting).toContain(signal);
  expect(lasting.length).toBeGreaterThanOrEqual(2);
  for (const target of lasting) expect(getEventListeners(target, "abort")).toEqual([]);
  expect(any).not.toHaveBeenCalled();
  any.mockRestore();
});

test("a server whose first answer does not begin is given up when the time for probes is over", async () => {
  const server = await fake();
  server.misbehave({ kind: "hang" });
  await expect(connect([server])).rejects.toMatchObject({ code: "backend_unavailable" });
}, 10_000);
