import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "../../model/open.ts";
import { count } from "../../numbers.ts";
import { type Finding, ok, warn } from "./check.ts";

/** Models that lie directly in the models directories, each opened as registering it would. */
export async function localModels(directories: readonly string[]): Promise<Finding[]> {
  const found = (await Promise.all(directories.map(entriesOf))).flat();
  if (found.length === 0) {
    return [
      warn(
        "models",
        `none in ${directories.join(", ")}`,
        "put a checkpoint directory or a .gguf file there, or register an hf: model",
      ),
    ];
  }
  return Promise.all(found.map(examine));
}

async function entriesOf(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch(() => []);
  const paths = names.filter((name) => !name.startsWith(".")).map((name) => join(directory, name));
  const models = await Promise.all(paths.map(async (path) => path.endsWith(".gguf") || (await isDirectory(path))));
  return paths.filter((_, i) => models[i]);
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}

async function examine(path: string): Promise<Finding> {
  const subject = "model";
  if (path.endsWith(".gguf")) return ok(subject, `${path} (GGUF; preceptor models inspect reads it whole)`);
  try {
    const { config, parameters } = await openCheckpoint(path);
    return ok(subject, `${path}: ${config.family}, ${count(parameters)} parameters`);
  } catch (error) {
    // The server starts without it.
    return warn(subject, `${path}: ${(error as Error).message}`, "correct it, or move it away");
  }
}
