/** What a directory tells of a model whose weights are elsewhere: its config files, where they lie beside the tokenizer. */
import { readEosIds } from "./config.ts";
import { isObject, type JsonObject, readJson } from "./json.ts";
import { openDirectory } from "./paths.ts";
import { TEMPER_KEY } from "./temper.ts";

export interface TokenizerFacts {
  /** Rows of the head; null: no config.json says so. */
  vocabSize: number | null;
  /** Ids that end a turn, as generation_config.json or config.json have them. */
  eosIds: readonly number[];
  /** The temperature that a tempered copy's config remembers. */
  tempered: number | null;
}

/** Errors: `model_source_not_found`, `model_source_not_allowed`, `invalid_checkpoint` (a damaged file). */
export async function readTokenizerFacts(directory: string, allowedRoots: readonly string[]): Promise<TokenizerFacts> {
  const dir = await openDirectory(directory, allowedRoots);
  const read = async (name: string): Promise<JsonObject | null> =>
    dir.entries.has(name) ? (await readJson(dir, name)).value : null;
  const config = await read("config.json");
  const text = isObject(config?.text_config) ? config.text_config : null;
  const size = config?.vocab_size ?? text?.vocab_size;
  const vocabSize = Number.isSafeInteger(size) && (size as number) > 0 ? (size as number) : null;
  const tempered = config?.[TEMPER_KEY];
  return {
    vocabSize,
    eosIds: readEosIds([await read("generation_config.json"), config, text], vocabSize ?? Number.MAX_SAFE_INTEGER),
    tempered: typeof tempered === "number" ? tempered : null,
  };
}
