/** Bounds of a dataset. Each exists so that a bad file costs an error, never the process. */

/** A question, its solution and a long chain of thought have some 100 kB; what is longer is no row but a file without line ends. */
export const MAX_LINE_BYTES = 16 * 2 ** 20;
/** A million characters are about 250,000 tokens, beyond any context served here. */
export const MAX_TEXT_CHARACTERS = 1_000_000;
/** Twice the largest sets in use; while a file is read, its questions and ids are held as hashes of 16 bytes. */
export const MAX_ROWS = 2_000_000;
/** Longer ids are texts. */
export const MAX_ROW_ID_CHARACTERS = 200;
/** Deeper metadata could not be written down again without risking the stack. */
export const MAX_METADATA_DEPTH = 32;
/** How many bad lines are told: enough to see the pattern. */
export const MAX_TOLD_LINES = 20;
