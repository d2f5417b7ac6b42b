import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import type { Logger } from "pino";
import { PreceptorError } from "../../errors.ts";
import { slugSchema } from "../../http/schemas.ts";
import { registerModelSchema } from "./schemas.ts";
import type { ModelService } from "./service.ts";

/**
 * Registers what lies in the models directories and is not registered yet, as teacher and student alike, under the name
 * of its directory or GGUF file: a checkpoint put into ./models answers after `npm start` without another word. A model
 * that cannot be used is named in the log and skipped.
 */
export async function registerFound(deps: {
  models: Pick<ModelService, "register" | "list">;
  modelsDirs: readonly string[];
  log: Logger;
}): Promise<void> {
  const { models, modelsDirs, log } = deps;
  const known = new Set((await models.list()).map(({ id }) => id));
  for (const directory of modelsDirs) {
    for (const name of await candidates(directory)) {
      const id = name.replace(/\.gguf$/i, "");
      if (known.has(id)) continue;
      if (!slugSchema.safeParse(id).success) {
        log.warn({ name }, "found a model whose name cannot be an id; register it by hand or rename it");
        continue;
      }
      known.add(id);
      try {
        const body = registerModelSchema.parse({ id, model: path.join(directory, name) });
        await models.register("teacher", body);
        await models.register("student", body);
        log.info({ id }, "registered a model found in the models directory, as teacher and student");
      } catch (error) {
        if (!(error instanceof PreceptorError)) throw error;
        log.warn({ id, reason: error.message }, "a model in the models directory cannot be used");
      }
    }
  }
}

/** Directories with a config.json and GGUF files directly below a models directory, in the order of their names. */
async function candidates(directory: string): Promise<string[]> {
  const entries = await readdir(directory).catch(() => []);
  const found: string[] = [];
  for (const name of entries.sort()) {
    const isModel = /\.gguf$/i.test(name) || (await isFile(path.join(directory, name, "config.json")));
    if (isModel && !name.startsWith(".")) found.push(name);
  }
  return found;
}

async function isFile(file: string): Promise<boolean> {
  return stat(file).then(
    (info) => info.isFile(),
    () => false,
  );
}
