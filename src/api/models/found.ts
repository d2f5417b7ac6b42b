import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import type { Logger } from "pino";
import { mapLimited } from "../../concurrency.ts";
import { PreceptorError } from "../../errors.ts";
import { slugSchema } from "../../http/schemas.ts";
import { registerModelSchema } from "./schemas.ts";
import type { ModelService } from "./service.ts";

/** Two conversions of GGUF files run at once (preparation.ts), so more registrations at once would only wait. */
const PARALLEL_REGISTRATIONS = 2;

/**
 * Registers what lies in the models directories and never was registered, as teacher and student alike, under the name
 * of its directory or GGUF file: a checkpoint put into ./models answers after `npm start` without another word. A model
 * that cannot be used is named in the log and skipped; one that a caller deleted stays deleted.
 */
export async function registerFound(deps: {
  models: Pick<ModelService, "register" | "wasRegistered">;
  modelsDirs: readonly string[];
  log: Pick<Logger, "info" | "warn" | "error">;
}): Promise<void> {
  const { models, modelsDirs, log } = deps;
  const found = new Map<string, string>();
  for (const directory of modelsDirs) {
    for (const name of await candidates(directory)) {
      const id = name.replace(/\.gguf$/i, "");
      if (found.has(id)) continue;
      if (slugSchema.safeParse(id).success) found.set(id, path.join(directory, name));
      else log.warn({ name }, "found a model whose name cannot be an id; register it by hand or rename it");
    }
  }
  await mapLimited([...found], PARALLEL_REGISTRATIONS, async ([id, model]) => {
    try {
      if (await models.wasRegistered(id)) return;
      const body = registerModelSchema.parse({ id, model });
      await models.register("teacher", body, { found: true });
      await models.register("student", body, { found: true });
      log.info({ id }, "registered a model found in the models directory, as teacher and student");
    } catch (error) {
      if (error instanceof PreceptorError) log.warn({ id, reason: error.message }, "a found model cannot be used");
      else log.error({ id, err: error }, "a found model could not be registered");
    }
  });
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
