import type { HeldModel, ModelRegistry } from "../../src/api/models/registry.ts";
import type { EngineModel } from "../../src/engine/engine.ts";
import { fail } from "../../src/errors.ts";
import type { FormatSpec } from "../../src/rlt/formats.ts";
import type { TextModel } from "../../src/text/text.ts";
import { createFakeEngine, createFakeText } from "./fakes.ts";

export interface FakeRegistryModel {
  engine?: EngineModel;
  text?: TextModel;
  adapter?: HeldModel["adapter"];
  format?: FormatSpec;
  version?: number;
}

export interface FakeRegistry extends ModelRegistry {
  /** Models held and not yet released: 0 when every request gave back what it took. */
  held(): number;
}

/** A registry over models that are there already. Names are ids, `id@<version>` or `id@latest`. */
export function createFakeRegistry(models: Readonly<Record<string, FakeRegistryModel>>): FakeRegistry {
  const entries = new Map(
    Object.entries(models).map(([id, model]) => [
      id,
      {
        engine: model.engine ?? createFakeEngine(),
        text: model.text ?? createFakeText(),
        adapter: model.adapter ?? null,
        format: model.format ?? ("stratos" as FormatSpec),
        version: model.version ?? 1,
      },
    ]),
  );
  let held = 0;

  function find(name: string, param: string | undefined) {
    const [id = "", version] = name.split("@");
    const entry = entries.get(id);
    if (!entry || (version !== undefined && version !== "latest" && version !== String(entry.version))) {
      throw fail("model_not_found", `there is no model "${name}"; GET /v1/models lists them`, { param });
    }
    return { id, ...entry, contextLength: entry.engine.contextLength, eosIds: entry.text.eosIds };
  }

  return {
    async hold(name, options) {
      const entry = find(name, options?.param);
      held++;
      let released = false;
      return {
        ...entry,
        release() {
          if (released) throw new Error(`${name} was released twice`);
          released = true;
          held--;
        },
      };
    },
    text: async (name, options) => find(name, options?.param),
    list: async () => [...entries.keys()].map((id, i) => ({ id, created_at: 1_700_000_000 + i, context_length: 4096 })),
    held: () => held,
  };
}
