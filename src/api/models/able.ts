/** Whether a model can do what a request needs, and who else could. */
import type { ModelRecord } from "../../db/records.ts";
import type { Capabilities } from "../../engine/engine.ts";
import { fail } from "../../errors.ts";
import { isRemoteSource } from "../../model/source.ts";
import { NOT_REACHED } from "./describe.ts";
import { inexact, lacking, type Needs } from "./needs.ts";
import type { Preparation, Prepared } from "./preparation.ts";
import type { Role } from "./registry.ts";
import type { Version } from "./version.ts";

export interface AbilityDeps {
  preparation: Pick<Preparation, "prepared">;
  /** Of models that are loaded here. */
  capabilities: Capabilities;
  all(): Promise<ModelRecord[]>;
}

/** Names of other models in an error: a hint, not a list. */
const SUGGESTIONS = 3;

/** Throws `unsupported_by_backend` where a model cannot do what is needed; says who could. */
export type AbilityCheck = (
  version: Version,
  prepared: Prepared,
  request: { role: Role | undefined; param: string | undefined; needs: Needs },
) => Promise<void>;

export function createAbilityCheck({ preparation, capabilities, all }: AbilityDeps): AbilityCheck {
  const capabilitiesOf = (prepared: Prepared): Capabilities =>
    prepared.kind === "remote" ? prepared.model.capabilities : capabilities;

  /** Of a server that has not been reached nobody knows. */
  function known(version: Version): Capabilities {
    const prepared = preparation.prepared(version);
    if (prepared) return capabilitiesOf(prepared);
    return isRemoteSource(version.source) ? NOT_REACHED : capabilities;
  }

  async function advice(version: Version, prepared: Prepared, role: Role | undefined, needs: Needs): Promise<string> {
    const able = (await all()).filter(
      (other) =>
        other.id !== version.id && (!role || other.roles.includes(role)) && lacking(known(other), needs) === null,
    );
    // Numbers of models with one tokenizer can be compared token by token.
    const hashOf = (other: Version): string | null =>
      preparation.prepared(other)?.text.tokenizerHash ?? other.tokenizerHash;
    const alike = able.filter((other) => hashOf(other) === prepared.text.tokenizerHash);
    const names = (alike.length > 0 ? alike : able).slice(0, SUGGESTIONS).map(({ id }) => id);
    if (names.length > 0) return `${names.join(", ")} can`;
    const own = capabilitiesOf(prepared);
    const temperature = inexact(own, needs.exact_temperatures);
    if (temperature === undefined || lacking(own, { ...needs, exact_temperatures: [] }) !== null) {
      return "no other registered model can; a checkpoint that this server loads itself could";
    }
    const copy =
      temperature === 1
        ? "serve the weights that are not tempered too and register them without tempered"
        : `serve a tempered copy (preceptor models temper) and register it with tempered: ${temperature}`;
    // Only what is asked of a teacher or student may be an estimate.
    return `no other registered model can; ${copy}${role ? ", or leave out parity to get an error_bound" : ""}`;
  }

  return async (version, prepared, { role, param, needs }) => {
    const missing = lacking(capabilitiesOf(prepared), needs);
    if (missing === null) return;
    const hint = await advice(version, prepared, role, needs);
    throw fail("unsupported_by_backend", `${version.id} cannot ${missing}; ${hint}`, { param });
  };
}
