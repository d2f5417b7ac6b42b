import { fail } from "../../errors.ts";
import type { List } from "../../http/list.ts";
import type { ModelRegistry, ModelSummary } from "../models/registry.ts";
import type { OpenaiModel } from "./schemas-models.ts";

/** `GET /v1/models`: every registered teacher and student, as OpenAI lists models. */
export interface OpenaiModels {
  list(): Promise<List<OpenaiModel>>;
  /** `id` may name a version. Throws `model_not_found`. */
  get(id: string): Promise<OpenaiModel>;
}

export function createOpenaiModels({ registry }: { registry: Pick<ModelRegistry, "list" | "text"> }): OpenaiModels {
  return {
    async list() {
      const data = (await registry.list()).map(toModel);
      return {
        object: "list",
        data,
        first_id: data[0]?.id ?? null,
        last_id: data.at(-1)?.id ?? null,
        has_more: false,
      };
    },
    async get(id) {
      const [base] = id.split("@");
      const found = (await registry.list()).find((model) => model.id === base);
      if (!found) {
        throw fail("model_not_found", `There is no model "${id.slice(0, 200)}". GET /v1/models lists them.`, {
          param: "model",
        });
      }
      // A version is the registry's to judge.
      if (id !== base) await registry.text(id, { param: "model" });
      return { ...toModel(found), id };
    },
  };
}

function toModel({ id, created_at, context_length }: ModelSummary): OpenaiModel {
  return { id, object: "model", created: created_at, owned_by: "preceptor", max_model_len: context_length };
}
