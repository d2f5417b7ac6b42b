/** Tokenizer metadata for a model that has none: enough for llama.cpp to load it; benchmarks speak token ids. */
import { byteAlphabet } from "../../../src/model/gguf/byte-alphabet.ts";
import { bool, type GgufValue, i32s, text, texts, u32 } from "../../unit/gguf/write-gguf.ts";

/** llama.cpp's token types. */
const [NORMAL, CONTROL, UNUSED] = [1, 3, 5];

const CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/** The loader wants the key, and with an empty list warns about a broken tokenizer. */
const MERGES: readonly (readonly [string, string])[] = [
  ["t", "h"],
  ["i", "n"],
  ["th", "e"],
];

/** A byte-level BPE vocabulary: three control tokens, every byte, three merges, and unused entries up to `size`. */
export function madeUpVocabulary(size: number): Record<string, GgufValue> {
  const words = [...byteAlphabet(), ...MERGES.map((pair) => pair.join(""))];
  const named = [...CONTROLS, ...words];
  if (size < named.length) throw new Error(`a vocabulary of ${size} tokens has no room for every byte`);
  const unused = Array.from({ length: size - named.length }, (_, i) => `[PAD${i}]`);
  return {
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("smollm"),
    "tokenizer.ggml.tokens": texts([...named, ...unused]),
    "tokenizer.ggml.token_type": i32s([
      ...CONTROLS.map(() => CONTROL),
      ...words.map(() => NORMAL),
      ...unused.map(() => UNUSED),
    ]),
    "tokenizer.ggml.merges": texts(MERGES.map((pair) => pair.join(" "))),
    "tokenizer.ggml.bos_token_id": u32(1),
    "tokenizer.ggml.eos_token_id": u32(2),
    "tokenizer.ggml.add_bos_token": bool(false),
  };
}
