import { expect, test } from "vitest";
import type { Priority } from "../../src/engine/engine.ts";
import { createFairQueue, type Waiting } from "../../src/engine/fair-queue.ts";

interface Item extends Waiting {
  name: string;
}

const item = (name: string, priority: Priority = "interactive"): Item => ({ name, client: name[0]!, priority });
const names = (items: readonly Item[]): string[] => items.map(({ name }) => name);

test("clients take turns, each with its oldest; interactive requests go before jobs", () => {
  const queue = createFairQueue<Item>();
  for (const name of ["a1", "a2", "a3", "b1", "c1", "c2"]) queue.push(item(name));
  queue.push(item("d1", "job"));
  queue.push(item("e1"));
  expect(names(queue.inOrder())).toEqual(["a1", "b1", "c1", "e1", "a2", "c2", "a3", "d1"]);
  expect(queue.size).toBe(8);
});

test("who was served goes to the end of the line; who left keeps its client's turn", () => {
  const queue = createFairQueue<Item>();
  const items = ["a1", "a2", "b1", "b2"].map((name) => item(name));
  for (const each of items) queue.push(each);
  queue.remove(items[0]!, true);
  expect(names(queue.inOrder())).toEqual(["b1", "a2", "b2"]);
  queue.remove(items[2]!, false);
  expect(names(queue.inOrder())).toEqual(["b2", "a2"]);
  queue.remove(items[2]!, true);
  expect(queue.size).toBe(2);
  expect([queue.countOf("a"), queue.countOf("b"), queue.countOf("z")]).toEqual([1, 1, 0]);
});

test("served until it is empty, a queue gives everybody the same share", () => {
  const queue = createFairQueue<Item>();
  for (let i = 0; i < 30; i++) queue.push(item(`a${i}`));
  for (let i = 0; i < 3; i++) queue.push(item(`b${i}`));
  const served: string[] = [];
  while (queue.size > 0) {
    const [next] = queue.inOrder();
    queue.remove(next!, true);
    served.push(next!.name);
  }
  expect(served.slice(0, 6)).toEqual(["a0", "b0", "a1", "b1", "a2", "b2"]);
  expect(served).toHaveLength(33);
});
