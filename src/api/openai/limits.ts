/** Limits of the OpenAI-compatible routes, each with its reason. */

/** Choices per prompt; OpenAI's own limit. */
export const MAX_N = 128;
/** Prompts in one request. Evaluation harnesses send a few hundred at most. */
export const MAX_PROMPTS = 1024;
/** Prompts × n: each choice keeps its decoding state (and in a plain response its text) in memory. */
export const MAX_CHOICES = 1024;
/**
 * Choices of one request that the engine has at a time, as many as it decodes for one client: a long list of prompts keeps
 * it busy, but does not stand in its queue as a crowd that is refused for its size.
 */
export const PARALLEL_CHOICES = 64;
/** OpenAI allows 4, vLLM any number; every token is compared with each of them. */
export const MAX_STOPS = 16;
/** A stop string holds back as much text while streaming; longer ones are surely a mistake. */
export const MAX_STOP_CHARS = 512;
/** Stop ids are searched for every token. */
export const MAX_STOP_IDS = 64;
/** Alternatives per token; OpenAI's limit for chats and vLLM's default. */
export const MAX_LOGPROBS = 20;
/** vLLM's number for all ids of the vocabulary, where others say how many. */
export const WHOLE_VOCABULARY = -1;
/** Log-probs in one JSON answer, about 100 bytes each: 50 MB, and half a second of the HTTP thread to write it. */
export const MAX_REPORTED_LOGPROBS = 500_000;
/** Messages in one chat; the template loops over them. */
export const MAX_MESSAGES = 4096;
/** Texts longer than context × this are refused before tokenising: English has 4 characters per token, runs of blanks up to 64. */
export const MAX_CHARS_PER_TOKEN = 64;
/** Characters /v1/tokenize takes: a few seconds of the text thread, which every request shares. */
export const MAX_TOKENIZE_CHARS = 1_000_000;
/** Ids /v1/detokenize takes. */
export const MAX_DETOKENIZE_IDS = 1_000_000;
/** OpenAI's range ends at 2. */
export const MAX_TEMPERATURE = 2;
/** Below it a division of logits is greedy but for rounding, and at last overflows; 0 says greedy. */
export const MIN_TEMPERATURE = 1e-3;
/** Temperatures for scoring: distributions beyond it are flat. */
export const MAX_SCORING_TEMPERATURE = 100;
/** JSON has no −Infinity; vLLM writes this number for a log-prob that underflowed. */
export const LOWEST_LOGPROB = -9999;
