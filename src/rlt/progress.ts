/** One step of an explanation: everything read so far, and where it ends in bytes. */
export interface Step {
  text: string;
  end: number;
}

/** Each step is a pass of the student over all that came before: beyond this, neighbouring steps are joined. */
export const MAX_STEPS = 32;

/**
 * Prefixes of an explanation after each of its steps: paragraphs, or sentences where there is one paragraph only.
 * Teaching makes the student's belief in the solution climb; a leaked answer makes it jump.
 */
export function explanationSteps(explanation: string): Step[] {
  const paragraphs = bordersOf(explanation, /\n\s*\n\s*/g);
  const borders = paragraphs.length > 1 ? paragraphs : bordersOf(explanation, /(?<=[.!?。！？])\s+/g);
  const stride = Math.ceil(borders.length / MAX_STEPS);
  const kept = borders.filter((_, i) => (i + 1) % stride === 0 || i === borders.length - 1);
  return kept.map((border) => {
    const text = explanation.slice(0, border);
    return { text, end: Buffer.byteLength(text) };
  });
}

/** Ends of the pieces that a separator divides a text into, without empty ones; none for blank text. */
function bordersOf(text: string, separator: RegExp): number[] {
  const borders: number[] = [];
  for (const match of text.matchAll(separator)) if (match.index > 0) borders.push(match.index);
  // The last step is the whole text, with the white space it ends in: its number is the score's own.
  const end = text.trimEnd().length;
  return end === 0 ? [] : [...borders.filter((border) => border < end), text.length];
}
