import { readdir } from "node:fs/promises";
import { join } from "node:path";

/**
 * The GGUF file a directory stands for: its only one, when it has no safetensors beside it (a hub repository of that
 * kind); null otherwise.
 */
export async function findGguf(directory: string): Promise<string | null> {
  const names = await readdir(directory).catch(() => [] as string[]);
  if (names.some((name) => name.endsWith(".safetensors"))) return null;
  const [first, second] = names.filter((name) => name.endsWith(".gguf"));
  return first !== undefined && second === undefined ? join(directory, first) : null;
}
