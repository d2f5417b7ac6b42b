import { copyFile, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type RandomShape, SMOLLM2_135M, writeRandomCheckpoint } from "../engine/random-checkpoint.ts";

const GOLDEN = fileURLToPath(new URL("../golden/models/llama", import.meta.url));

/**
 * A model for the server: the shape of a real small one with random weights, and a tokenizer. The golden one knows 512
 * ids; the others become made-up words, since a random model samples all ids alike and its text must go through everything
 * that a real model's text goes through.
 */
export async function writeRandomModel(directory: string, shape: RandomShape = SMOLLM2_135M): Promise<string> {
  await writeRandomCheckpoint(directory, shape);
  for (const name of ["tokenizer_config.json", "chat_template.jinja"]) {
    await copyFile(path.join(GOLDEN, name), path.join(directory, name));
  }
  const tokenizer = JSON.parse(await readFile(path.join(GOLDEN, "tokenizer.json"), "utf8")) as Tokenizer;
  const taken = new Set([...Object.values(tokenizer.model.vocab), ...tokenizer.added_tokens.map(({ id }) => id)]);
  for (let id = 0; id < shape.vocabSize; id++) {
    if (!taken.has(id)) tokenizer.model.vocab[madeUpWord(id)] = id;
  }
  // No merge makes a made-up word: it is looked up whole, so that what was sampled takes as many tokens when it is read.
  tokenizer.model.ignore_merges = true;
  await writeFile(path.join(directory, "tokenizer.json"), JSON.stringify(tokenizer));
  return directory;
}

interface Tokenizer {
  added_tokens: { id: number }[];
  model: { vocab: Record<string, number>; ignore_merges?: boolean };
}

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CAPITALS = 26;

/** A blank (`Ġ` in byte-level vocabularies), two letters and a capital: the golden vocabulary has no entry like it. */
function madeUpWord(id: number): string {
  const rest = Math.floor(id / CAPITALS);
  const first = LETTERS[rest % LETTERS.length];
  const second = LETTERS[Math.floor(rest / LETTERS.length) % LETTERS.length];
  return `Ġ${first}${second}${LETTERS[id % CAPITALS]}`;
}
