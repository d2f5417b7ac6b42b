import { fail } from "../../errors.ts";

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
const MODEL_WEIGHTS = /^model(-\d{5}-of-\d{5})?\.safetensors$/;

/**
 * The files of a repository that a model needs: top-level configuration and tokenizer files and the safetensors weights.
 * Repositories often hold the same weights again in other forms (PyTorch .bin, ONNX, "consolidated" ones); those stay.
 * A .gguf is taken only where there are no safetensors, and only when there is no choice to make.
 *
 * Errors: `hub_error` when there is nothing to load.
 */
export function selectFiles(repo: string, names: readonly string[]): string[] {
  const top = names.filter((name) => !/[/\\\0]/.test(name) && !name.startsWith("."));
  const texts = top.filter((name) => TEXT_FILES.has(name));
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
