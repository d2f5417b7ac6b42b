import { expect, test } from "vitest";
import { decodeMask, prefillMask } from "../../src/engine/onnx/mask.ts";

const seen = (mask: Float32Array): boolean[] => {
  for (const value of mask) expect(value === 0 || Math.exp(value) === 0).toBe(true);
  return [...mask].map((value) => value === 0);
};

test.each([
  { past: 0, length: 5, window: null },
  { past: 6, length: 5, window: null },
  { past: 6, length: 5, window: 4 },
  { past: 6, length: 5, window: 1 },
  { past: 6, length: 3, window: 100 },
])("a prefill of $length after $past, window $window: each token sees what came before it", (shape) => {
  const { past, length, window } = shape;
  const expected: boolean[] = [];
  for (let s = 0; s < length; s++) {
    for (let j = 0; j < past + length; j++) {
      expected.push(j <= past + s && (window === null || past + s - j < window));
    }
  }
  expect(seen(prefillMask(shape))).toEqual(expected);
});

test.each([
  { prompts: [3, 0, 5], promptRoom: 8, lengths: [1, 0, 4], room: 4, window: null },
  { prompts: [3, 7], promptRoom: 8, lengths: [3, 0], room: 3, window: 3 },
  { prompts: [3, 7], promptRoom: 8, lengths: [3, 1], room: 5, window: 1 },
  { prompts: [4, 4], promptRoom: 4, lengths: [0, 2], room: 2, window: 100 },
  { prompts: [4], promptRoom: 4, lengths: [0], room: 0, window: 2 },
])("a decode step after $prompts and $lengths, window $window", (shape) => {
  const { prompts, promptRoom, lengths, room, window } = shape;
  const expected = prompts.flatMap((prompt, b) => {
    const position = prompt + lengths[b]!;
    const near = (p: number): boolean => window === null || position - p < window;
    return [
      ...Array.from({ length: promptRoom }, (_, j) => j < prompt && near(j)),
      ...Array.from({ length: room }, (_, j) => j < lengths[b]! && near(prompt + j)),
      true,
    ];
  });
  expect(seen(decodeMask(shape))).toEqual(expected);
});
