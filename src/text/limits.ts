/** Bounds of the text worker. Each exists so that a hostile model directory or text costs time or an error, never the process. */

/** The largest tokenizer.json in use (gemma 3) has 33 MB; JSON.parse needs about eight times the size. */
export const MAX_TOKENIZER_FILE_BYTES = 128 * 2 ** 20;
/** Templates in use have at most 20 kB. */
export const MAX_TEMPLATE_CHARS = 512 * 1024;
/** The largest vocabularies in use have 262,144 entries; also keeps a pair of ids in one exact double (`bpe.ts`). */
export const MAX_VOCABULARY = 2 ** 22;
/** Characters of one request: far beyond every context, and well below the sizes at which the worker runs out of memory. */
export const MAX_TEXT_CHARS = 8 * 2 ** 20;
/** A template that writes more than this is broken: no model has a context that long. */
export const MAX_RENDERED_CHARS = 8 * 2 ** 20;
/** A render of a few hundred kB takes milliseconds; seconds leave room for a machine whose cores are all computing. */
export const RENDER_LIMIT_MS = 3_000;
/** Loading takes 0.1 to 1 s on an idle machine. */
export const OPEN_LIMIT_MS = 120_000;
/** Encoding: a fixed allowance, and a tenth of the slowest measured speed (about 1 MB/s). */
export const CALL_LIMIT_MS = 20_000;
export const CALL_LIMIT_MS_PER_KB = 10;
/**
 * Heap of the worker thread: room for `MAX_MODELS` large tokenizers (some 60 MB each) and one long text. Not more: beyond
 * 1.4 GB an array may reach V8's largest size, and growing it further ends the process instead of the thread.
 */
export const WORKER_HEAP_MB = 1_200;
/** Loaded models kept; the least recently used one is dropped and read again when it is needed. */
export const MAX_MODELS = 8;
