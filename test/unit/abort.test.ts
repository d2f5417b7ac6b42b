import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { linked, unlessAborted } from "../../src/abort.ts";

test("it ends with whichever ends first, for that one's reason", () => {
  const [a, b] = [new AbortController(), new AbortController()];
  const { signal } = linked(a.signal, undefined, b.signal);
  expect(signal.aborted).toBe(false);
  b.abort(new Error("b"));
  a.abort(new Error("a"));
  expect(signal.reason).toEqual(new Error("b"));
  expect(linked(AbortSignal.abort("before"), a.signal).signal.reason).toBe("before");
});

test("unlinked, it leaves nothing behind and ends no more", () => {
  const lasting = new AbortController();
  const requests = Array.from({ length: 50 }, () => linked(lasting.signal, new AbortController().signal));
  expect(getEventListeners(lasting.signal, "abort")).toHaveLength(50);
  for (const { unlink } of requests) unlink();
  expect(getEventListeners(lasting.signal, "abort")).toEqual([]);
  lasting.abort();
  expect(requests.some(({ signal }) => signal.aborted)).toBe(false);
});

test("work is waited for until the signal says no", async () => {
  const { signal } = new AbortController();
  expect(await unlessAborted(Promise.resolve(1), signal)).toBe(1);
  expect(await unlessAborted(Promise.resolve(1), undefined)).toBe(1);
  expect(getEventListeners(signal, "abort")).toEqual([]);
  const never = new Promise(() => undefined);
  await expect(unlessAborted(never, AbortSignal.abort("gone"))).rejects.toBe("gone");
  const controller = new AbortController();
  const waiting = unlessAborted(never, controller.signal);
  controller.abort("later");
  await expect(waiting).rejects.toBe("later");
});
