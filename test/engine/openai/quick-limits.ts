/** The engine's waits, short enough for tests; for `vi.mock` of its limits. A busy machine must not run into them. */
export const QUICK = {
  FIRST_BACKOFF_MS: 4,
  MAX_BACKOFF_MS: 16,
  FIRST_OPEN_MS: 60,
  MAX_OPEN_MS: 120,
  HEALTH_INTERVAL_MS: 50,
  DEFAULT_RETRY_AFTER_MS: 60,
  MAX_RETRY_AFTER_MS: 1_000,
};

/** And its patience, for tests in which it is to run out. */
export const IMPATIENT = {
  ...QUICK,
  WAIT_FOR_REPLICA_MS: 400,
  QUESTION_TIMEOUT_MS: 400,
  ANSWER_TIMEOUT_MS: 500,
  CHUNK_TIMEOUT_MS: 400,
  FIRST_EVENT_TIMEOUT_MS: 1_500,
  ERROR_BODY_TIMEOUT_MS: 300,
};
