/** JSON values in messages: the beginning of what JSON.stringify says, whatever the value. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { show } from "../../src/model/json.ts";

test("a value is shown as JSON, cut after so many characters", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.integer({ min: 1, max: 80 }), (value, length) => {
      const text = JSON.stringify(value);
      expect(show(value, length)).toBe(text.length <= length ? text : `${text.slice(0, length)}…`);
    }),
  );
  expect(show(undefined)).toBe("nothing");
});

test("deep and large values cost no more than what is shown of them", () => {
  const deep = JSON.parse("[".repeat(100_000) + "]".repeat(100_000)) as unknown;
  expect(show(deep, 20)).toBe(`${"[".repeat(20)}…`);
  expect(show({ a: { b: deep } }, 20)).toBe(`{"a":{"b":${"[".repeat(10)}…`);
  const large = Array.from({ length: 1_000_000 }, () => "x".repeat(100));
  const started = performance.now();
  for (let i = 0; i < 1_000; i++) show(large);
  expect(performance.now() - started).toBeLessThan(1_000);
});
