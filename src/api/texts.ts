/** Texts that callers bring: their limits, and what no text may be. */
import { z } from "@hono/zod-openapi";

/**
 * A million characters are about 250,000 tokens, beyond any context served here: what is longer is a mistake, and
 * refusing it costs nothing while tokenising it costs seconds.
 */
export const MAX_TEXT_CHARACTERS = 1_000_000;

export const textSchema = z.string().max(MAX_TEXT_CHARACTERS);

const filled = textSchema.refine((text) => text.trim() !== "", "must not be empty");

export const questionSchema = filled.openapi({ example: "What is 2+3?" });
export const solutionSchema = filled.openapi({ example: "5" });

/** A text of one item among many: one that is unfit must not lose the others, so `faultOfText` judges it later. */
export const itemTextSchema = z.string().openapi({ maxLength: MAX_TEXT_CHARACTERS });

/** Why `textSchema` (with `filled`, `questionSchema`) would refuse a text. */
export function faultOfText(text: string, { filled = false } = {}): string | undefined {
  if (text.length > MAX_TEXT_CHARACTERS)
    return `has ${text.length} characters; at most ${MAX_TEXT_CHARACTERS} are read`;
  return filled && text.trim() === "" ? "must not be empty" : undefined;
}
