import type { Capabilities } from "../engine.ts";
import type { IdsFrom } from "./wire.ts";

/** What probing a server has shown, beside its capabilities: how to ask it. */
export interface Profile {
  capabilities: Capabilities;
  /** Null: it does not say which ids it samples. */
  idsFrom: IdsFrom | null;
  /** It answers n choices to one request. */
  manyChoices: boolean;
  /** Alternatives that may be asked for per sampled token. */
  sampleAlternatives: number;
  /** At which temperature it reports log-probs of sampled tokens: 1, or the sampling temperature; null: unknown. */
  sampledLogprobs: "plain" | "scaled" | null;
  /** It divides logits before `prompt_logprobs` where it is asked to (Preceptor). */
  scalesPrompts: boolean;
  /** `prompt_logprobs: -1` gives the whole vocabulary, and that is small enough. */
  wholeRows: boolean;
  /** Most alternatives per prompt position; 0: none but the prompt's own. */
  alternatives: number;
  /** It scores a prompt without sampling a token after it. */
  scoresOnly: boolean;
  vocabSize: number;
  contextLength: number | null;
  /** (probeIds − 1) log-probs of the probe, by which replicas are compared; null where it reports none. */
  probe: Float32Array | null;
  /** What the server says it is; another text means: look again. */
  identity: string;
}
