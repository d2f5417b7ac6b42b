/** What the current weights of a session say of given tokens. */
import type { Caller } from "../../../caller.ts";
import { fail } from "../../../errors.ts";
import { type ScoredSequence, scoreTokens } from "../../../train/next-tokens.ts";
import { checkIds } from "../../openai/prompts.ts";
import type { OpenSession } from "./resource.ts";
import type { LogprobsBody, LogprobsResultBody } from "./schemas.ts";
import { checkTokens } from "./sequences.ts";

/** Ids reported by one call: an answer of some 60 MB. */
const MAX_REPORTED = 2_000_000;

export async function logprobsFrom(
  { session }: OpenSession,
  body: LogprobsBody,
  caller: Caller,
): Promise<LogprobsResultBody> {
  const { data, at, temperature, top_k: topK, entropy } = body;
  if (at && at.length !== data.length) {
    throw fail("invalid_value", `at has ${at.length} entries for ${data.length} sequences`, { param: "at" });
  }
  const sequences = data.map(
    ({ tokens }, i): ScoredSequence => ({
      ids: checkTokens(tokens, `data.${i}.tokens`, session),
      at: at && checkPlaces(at[i]!, tokens.length, `at.${i}`, session.vocabSize),
    }),
  );
  const reported = sequences.reduce((sum, { ids, at: places = [] }) => {
    const width = places.reduce((most, place) => Math.max(most, place.length), 0);
    return sum + ids.length * (topK + width);
  }, 0);
  if (reported > MAX_REPORTED) {
    throw fail(
      "invalid_value",
      `top_k and at ask for ${reported} log-probs in one call; at most ${MAX_REPORTED} are answered, send fewer sequences at a time`,
      { param: topK > 0 ? "top_k" : "at" },
    );
  }
  const { step } = session;
  const scores = await scoreTokens(session, { sequences, temperature, topK, entropy, ...caller });
  return {
    logprobs: scores.map(({ logprobs }) => logprobs),
    ...(entropy ? { entropy: scores.map((score) => score.entropy!) } : {}),
    ...(topK > 0 ? { top: scores.map(({ top }) => top!) } : {}),
    ...(at ? { at: scores.map((score) => score.at!) } : {}),
    temperature,
    step,
  };
}

function checkPlaces(
  places: readonly (readonly number[] | null)[],
  tokens: number,
  param: string,
  vocabSize: number,
): number[][] {
  if (places.length !== tokens) {
    throw fail("invalid_value", `${param} has ${places.length} entries for ${tokens} tokens`, { param });
  }
  if ((places[0]?.length ?? 0) > 0) {
    throw fail("invalid_value", `${param}.0 must be null: nothing predicts the first token`, { param: `${param}.0` });
  }
  return places.map((ids, t) => [...checkIds(ids ?? [], vocabSize, `${param}.${t}`)]);
}
