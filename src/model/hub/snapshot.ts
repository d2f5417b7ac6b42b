import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileSize } from "./cache.ts";
import { TOKENIZERS } from "./select-files.ts";
import type { HubFiles } from "./types.ts";

/**
 * What a snapshot in the cache lacks to be loaded without the network, in words; null when it is complete. Downloads are
 * interrupted, and other tools fetch single files, so a snapshot directory alone proves nothing.
 */
export async function missingFrom(snapshot: string, files: HubFiles): Promise<string | null> {
  const names = await readdir(snapshot).catch(() => [] as string[]);
  if (names.length === 0) return "it is not there";
  // Links whose blob is gone or not yet complete do not count.
  const present = new Set<string>();
  for (const name of names) if ((await fileSize(join(snapshot, name))) !== undefined) present.add(name);
  const noTokenizer = TOKENIZERS.some((name) => present.has(name)) ? null : "tokenizer.json is missing";
  if (files === "tokenizer") return noTokenizer;
  if ([...present].some((name) => name.endsWith(".gguf"))) return null;
  if (present.has("adapter_config.json") && present.has("adapter_model.safetensors")) return null;
  if (!present.has("config.json")) return "config.json is missing";
  if (noTokenizer !== null) return noTokenizer;
  if (present.has("model.safetensors.index.json")) {
    const shards = await shardNames(join(snapshot, "model.safetensors.index.json"));
    if (shards === null) return "model.safetensors.index.json is broken";
    const missing = shards.filter((name) => !present.has(name));
    return missing.length > 0 ? `${missing.slice(0, 3).join(", ")}${missing.length > 3 ? ", …" : ""} missing` : null;
  }
  return [...present].some((name) => name.endsWith(".safetensors")) ? null : "model.safetensors is missing";
}

async function shardNames(index: string): Promise<string[] | null> {
  try {
    const { weight_map: map } = JSON.parse(await readFile(index, "utf8")) as { weight_map: Record<string, string> };
    return [...new Set(Object.values(map))];
  } catch {
    return null;
  }
}
