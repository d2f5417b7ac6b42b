/** Bounds of the engine that talks to servers of others, each with its reason. */

/** Sequences under way at one replica: vLLM's own default (max_num_seqs); more would only wait there, out of our sight. */
export const MAX_ACTIVE_PER_REPLICA = 256;
/** Of one client, while others wait: half, so that nobody waits for the end of somebody else's crowd. */
export const MAX_CLIENT_SHARE = 0.5;
/** Requests of one client that may wait, and of all clients together (as in the embedded engine). */
export const MAX_WAITING_PER_CLIENT = 256;
export const MAX_WAITING = 1024;

/** An answer to a small question (which models, which tokens): a server that needs longer is not well. */
export const QUESTION_TIMEOUT_MS = 10_000;
/** From a request to its whole answer, or of silence before a stream's first event: a long prompt behind a long queue takes minutes. */
export const ANSWER_TIMEOUT_MS = 300_000;
/** Between two parts of an answer, or two events of a stream: decoding pauses for the prefill of others, but not for so long. */
export const CHUNK_TIMEOUT_MS = 60_000;
/** To a stream's first event, whatever comments come meanwhile: Preceptor sends some while a request waits, and its queue may be long. */
export const FIRST_EVENT_TIMEOUT_MS = 1_800_000;
/** Of a stream: the longest answers (32 k tokens) take nine hours at one token a second. */
export const STREAM_TIMEOUT_MS = 86_400_000;
/** After `[DONE]`: the end of the answer usually lies in the same packet, and frees the connection for the next request. */
export const AFTER_DONE_MS = 250;
/** For the body of a refusal: its status has said what matters. */
export const ERROR_BODY_TIMEOUT_MS = 2_000;
/** How long a request waits for any replica to come back before it is told to come back itself. */
export const WAIT_FOR_REPLICA_MS = 15_000;

/** Attempts of one request, each where possible at another replica. */
export const MAX_ATTEMPTS = 5;
/** Pauses between attempts double from here … */
export const FIRST_BACKOFF_MS = 200;
/** … to here. */
export const MAX_BACKOFF_MS = 5_000;
/** A server may ask for a longer pause than its clients want to be kept waiting: they are told instead. */
export const MAX_RETRY_AFTER_MS = 10_000;
/** Nobody looks at a replica again before its pause is over, so no server may ask for more than this. */
export const MAX_PAUSE_MS = 300_000;
/** Where a busy server names no time. */
export const DEFAULT_RETRY_AFTER_MS = 1_000;

/** Failures in a row that open a replica's circuit breaker: one may be chance, three are a state. */
export const FAILURES_TO_OPEN = 3;
/** The breaker stays open for so long at first; each failed trial doubles it … */
export const FIRST_OPEN_MS = 2_000;
/** … to here: a server that comes back is used again within a minute. */
export const MAX_OPEN_MS = 60_000;
/** Replicas in use are asked whether they are well, and still the same, this often … */
export const HEALTH_INTERVAL_MS = 15_000;
/** … until nobody has used the pool for so long. */
export const IDLE_AFTER_MS = 60_000;

/** Alternatives asked for in order to bound the rest: vLLM's default limit (max_logprobs), and Preceptor's. */
export const MAX_ALTERNATIVES = 20;
/**
 * Whole distributions travel as JSON, some 60 bytes an id: up to this vocabulary a position is half a megabyte. They are
 * for small models; real vocabularies would make a page of text a gigabyte.
 */
export const MAX_WHOLE_VOCABULARY = 8_192;
/** Log-probs in one answer that whole distributions may need; also Preceptor's own limit. */
export const MAX_WHOLE_ENTRIES = 450_000;

/** An answer of this size holds a long text with twenty alternatives per token several times over. */
export const MAX_ANSWER_BYTES = 256 * 1024 * 1024;
/** What is read of a refusal: proxies' error pages are smaller. */
export const MAX_ERROR_BYTES = 64 * 1024;
/** Of a server's own words about an error. */
export const MAX_ERROR_CHARS = 500;

/** Adapters kept loaded at a replica; the least recently used one goes. vLLM holds a few on the GPU and the others in memory. */
export const MAX_ADAPTERS = 16;
/** Beginnings of prompts whose replica is remembered; a group's requests come within seconds of each other. */
export const MAX_AFFINITIES = 4_096;
/** Ids that decide where a request goes for its prefix: a system prompt is about as long. */
export const AFFINITY_TOKENS = 256;

/** Replicas that answer the probe with other log-probs than these serve other weights; bf16 and batching move them by a hundredth. */
export const SAME_WEIGHTS_NATS = 0.1;
