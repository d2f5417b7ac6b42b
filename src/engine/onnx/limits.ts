import { totalmem } from "node:os";

/** Bounds of one loaded model's worker, each with its reason. */

/** Work of one prefill or scoring run: a third of a second on two slow cores, which bounds how long an abort waits. */
const CHUNK_FLOP = 7e10;
/** More rows make the products no faster (engine.md 2.4). */
const MOST_CHUNK_TOKENS = 256;
/** Fewer cost more in weights read than they save in waiting. */
const LEAST_CHUNK_TOKENS = 32;
/** While sequences are being decoded, a run between two of their tokens is this much shorter. */
const BUSY_SHARE = 4;

/**
 * Tokens per prefill or scoring run. Results do not depend on where a text is cut (attention.ts), so this may follow the
 * load: long runs while nobody waits for a token, short ones otherwise.
 */
export function chunkTokens(parameters: number, busy: boolean): number {
  const tokens = 2 ** Math.floor(Math.log2(CHUNK_FLOP / (2 * parameters)));
  const idle = Math.min(MOST_CHUNK_TOKENS, Math.max(LEAST_CHUNK_TOKENS, tokens));
  return busy ? Math.max(LEAST_CHUNK_TOKENS, idle / BUSY_SHARE) : idle;
}

/** Sequences decoded at a time: two whole groups of the paper, or one beside 64 other streams. */
export const MAX_SLOTS = 128;
/** Of one client, and of all jobs together: half, so that nobody waits for the end of somebody else's group. */
export const MAX_CLIENT_SLOTS = 64;

/** Prompts computed side by side, a chunk each in turn: a short one does not wait for the end of a long one. */
export const MAX_PREFILLS = 4;

/**
 * From this many samples on, a group is decoded in a run of its own that reads its prompt once for all. Smaller groups share a
 * run with other requests, with a copy of the prompt for each sample, unless no other group has a run of its own.
 */
export const GROUP_RUN_SAMPLES = 8;

/** Memory for keys and values of decoded sequences: a quarter of the machine, and no more than 8 GiB per model. */
export const CACHE_BYTES = Math.min(8 * 2 ** 30, totalmem() / 4);

/** Of that memory, one client's sequences may take this much: the others find room at once. */
export const CLIENT_CACHE_SHARE = 0.75;

/**
 * Sequences that share a run have rooms of one size, so prompts and answers of very different length are decoded apart: up to
 * these numbers of positions, four times as many, sixteen times. Most prompts, and the default length of an explanation, fit the first.
 */
const PROMPT_ROOM = 512;
const ANSWER_ROOM = 1024;
const ROOM_FACTOR = 4;

/** Names the run for a prompt of this length whose samples may become so long. */
export function roomClass(promptTokens: number, maxTokens: number): string {
  const steps = (length: number, first: number): number =>
    Math.max(0, Math.ceil(Math.log(length / first) / Math.log(ROOM_FACTOR)));
  return `${steps(promptTokens, PROMPT_ROOM)}/${steps(maxTokens, ANSWER_ROOM)}`;
}

/** Memory for prompts seen before: a 32nd of the machine, and no more than 2 GiB per model (45,000 tokens of a 135 M model). */
export const PREFIX_BYTES = Math.min(2 * 2 ** 30, totalmem() / 32);

/** Requests of one client that may wait for a slot, and of all clients together; a patient client is told to come back. */
export const MAX_WAITING_PER_CLIENT = 256;
export const MAX_WAITING = 1024;
/** The same for texts to be scored; a request of the API has up to 16 of them under way. */
export const MAX_SCORING_PER_CLIENT = 1024;
export const MAX_SCORING = 4096;

/** Long texts that are read side by side: with two, a short one does not wait for the end of a long one. */
export const MAX_READING = 2;

/** One vocabulary-wide matrix; the head holds about five of them at a time. */
const HEAD_BYTES = 32 * 2 ** 20;
/** More rows make the head no faster. */
const HEAD_ROWS = 64;

/** Rows that go through the head together. */
export function headRows(vocabSize: number): number {
  return Math.max(1, Math.min(HEAD_ROWS, Math.floor(HEAD_BYTES / (vocabSize * Float32Array.BYTES_PER_ELEMENT))));
}
