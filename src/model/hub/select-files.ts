import { fail } from "../../errors.ts";
import type { HubFiles } from "./types.ts";

/** One of these is in every repository of a language model; the first makes the others superfluous. */
export const TOKENIZERS: readonly string[] = ["tokenizer.json", "tokenizer.model", "vocab.json"];

/** Small files that decide configuration, tokenizer and template. */
const TEXT_FILES = new Set([
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
  "adapter_config.json",
  "model.safetensors.index.json",
]);
/** Text files that say something about weights: without those they are not needed. */
const WEIGHT_TEXTS = new Set(["adapter_config.json", "model.safetensors.index.json"]);
const MODEL_WEIGHTS = /^model(-\d{5}-of-\d{5})?\.safetensors$/;

/**
 * The files of a repository that a model needs: top-level configuration and tokenizer files and the safetensors weights.
 * Repositories often hold the same weights again in other forms (PyTorch .bin, ONNX, "consolidated" ones); those stay.
 * A .gguf is taken only where there are no safetensors, and only when there is no choice to make.
 *
 * In the order in which they are to be downloaded: what makes a snapshot count as complete comes last, lest one that was
 * interrupted counts as well.
 *
 * Errors: `hub_error` when there is nothing to load.
 */
export function selectFiles(repo: string, names: readonly string[], files: HubFiles): string[] {
  const top = names.filter((name) => !/[/\\\0]/.test(name) && !name.startsWith("."));
  const texts = top
    .filter((name) => TEXT_FILES.has(name))
    .sort((a, b) => TOKENIZERS.indexOf(a) - TOKENIZERS.indexOf(b));
  if (files === "tokenizer") return tokenizerFiles(repo, texts);
  const weights = top.filter((name) => name.endsWith(".safetensors"));
  const standard = weights.filter((name) => MODEL_WEIGHTS.test(name));
  if (weights.length > 0) return [...texts, ...(standard.length > 0 ? standard : weights)];
  const gguf = top.filter((name) => name.endsWith(".gguf"));
  if (gguf.length === 1) return [...texts, ...gguf];
  if (gguf.length > 1) {
    throw fail(
      "hub_error",
      `${repo} holds ${gguf.length} GGUF files (${gguf.slice(0, 8).join(", ")}${gguf.length > 8 ? ", …" : ""}); download the one you want and give its path`,
    );
  }
  const other = top.some((name) => name.endsWith(".bin") || name.endsWith(".pt") || name.endsWith(".pth"));
  throw fail(
    "hub_error",
    other
      ? `${repo} has PyTorch weights only; convert them to safetensors first (the hub's "convert" space does)`
      : `${repo} has neither .safetensors nor .gguf files, so there is no model to load`,
  );
}

function tokenizerFiles(repo: string, texts: readonly string[]): string[] {
  if (!texts.some((name) => TOKENIZERS.includes(name))) {
    throw fail(
      "hub_error",
      `${repo} has none of ${TOKENIZERS.join(", ")}, so there is no tokenizer to download; name a repository that has one, such as that of the base model`,
    );
  }
  return texts.filter((name) => !WEIGHT_TEXTS.has(name));
}
