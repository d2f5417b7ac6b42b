import { readdir } from "node:fs/promises";

/** What belongs to a checkpoint beside its weights: its config, its tokenizer, its templates and terms. */
const COMPANION = /\.(json|jinja|txt|model|md)$|^(LICENSE|NOTICE)/i;
/** Of other weights, of an adapter, or of a training. */
const NOT_COMPANION = /\.index\.json$|^(adapter_config|trainer_state|run_state|reference_terms)\.json$/;

/** Names of the files that a copy of the model with other weights needs too. */
export async function companionsOf(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory() && COMPANION.test(entry.name) && !NOT_COMPANION.test(entry.name))
    .map(({ name }) => name)
    .sort();
}
