/** Texts of remote models while their servers do not answer: the tokenizer lies here. */
import { PreceptorError } from "../../errors.ts";
import { isRemoteSource } from "../../model/source.ts";
import { within } from "../../within.ts";
import type { Preparation } from "./preparation.ts";
import type { ModelText } from "./registry.ts";
import type { ModelResource } from "./schemas.ts";
import type { ModelService } from "./service.ts";

/** A server that is well has been reached by then; only it knows its context length and whether it can do what is needed. */
const ASK_MS = 2_000;

/** `models`, whose `text` then needs no server. */
export function withTextsOfRemotes(models: ModelService, preparation: Pick<Preparation, "tokenizer">): ModelService {
  async function ofServer(name: string, options: Parameters<ModelService["text"]>[1]): Promise<ModelText | undefined> {
    try {
      return await within(models.text(name, options), ASK_MS);
    } catch (error) {
      if (error instanceof PreceptorError && SILENT.has(error.code)) return undefined;
      throw error;
    }
  }

  return {
    ...models,
    async text(name, options = {}) {
      const { role } = options;
      const model = await describe(models, name, role);
      if (!model?.tokenizer || !isRemoteSource(model.model)) return models.text(name, options);
      const asked = await ofServer(name, options);
      if (asked) return asked;
      return {
        id: model.id,
        version: model.version,
        text: await preparation.tokenizer(model.tokenizer),
        format: model.format,
        contextLength: model.context_length,
      };
    },
  };
}

/** What a server that is away, or has something against us, ends with: none of it concerns the tokenizer. */
const SILENT: ReadonlySet<PreceptorError["code"]> = new Set([
  "backend_unavailable",
  "backend_failed",
  "backend_refused",
  "overloaded",
  "model_loading",
]);

/** In the role that is asked for, otherwise as a teacher first (`formatOf`). Undefined: `text` says what is wrong with the name. */
async function describe(
  models: Pick<ModelService, "get">,
  name: string,
  role: "teacher" | "student" | undefined,
): Promise<ModelResource | undefined> {
  for (const each of role ? [role] : (["teacher", "student"] as const)) {
    try {
      return await models.get(each, name);
    } catch (error) {
      if (!(error instanceof PreceptorError && error.code === "model_not_found")) throw error;
    }
  }
  return undefined;
}
