/** Added to a score it makes exp() exactly 0, and it cannot overflow. */
const MASKED = -1e30;

/**
 * Additive mask (S, P + S) of a prefill: new token s stands at position P + s and sees all positions up to its own; with a
 * window, only those less than `window` positions back.
 */
export function prefillMask(shape: { past: number; length: number; window: number | null }): Float32Array {
  const { past, length, window } = shape;
  const width = past + length;
  const mask = new Float32Array(length * width);
  for (let s = 0; s < length; s++) {
    const row = s * width;
    const position = past + s;
    if (window !== null) mask.fill(MASKED, row, row + Math.max(0, position - window + 1));
    mask.fill(MASKED, row + position + 1, row + width);
  }
  return mask;
}

/**
 * Additive mask (B, P + C + 1) of a decode step. Row b has `prompts[b]` positions of prompt in a room for P, then
 * `lengths[b]` decoded ones in a room for C, then itself.
 */
export function decodeMask(shape: {
  prompts: readonly number[];
  promptRoom: number;
  lengths: readonly number[];
  room: number;
  window: number | null;
}): Float32Array {
  const { prompts, promptRoom, lengths, room, window } = shape;
  const width = promptRoom + room + 1;
  const mask = new Float32Array(prompts.length * width);
  for (let b = 0; b < prompts.length; b++) {
    const row = b * width;
    const prompt = prompts[b]!;
    const decoded = lengths[b]!;
    mask.fill(MASKED, row + prompt, row + promptRoom);
    mask.fill(MASKED, row + promptRoom + decoded, row + promptRoom + room);
    if (window === null) continue;
    const first = Math.max(0, prompt + decoded - window + 1);
    mask.fill(MASKED, row, row + Math.min(first, promptRoom));
    if (first > prompt) mask.fill(MASKED, row + promptRoom, row + promptRoom + Math.min(first - prompt, room));
  }
  return mask;
}
