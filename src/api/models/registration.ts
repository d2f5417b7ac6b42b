/** Registration bodies as they are kept, and what a second registration of an id comes to. */
import { canonicalJson } from "../../canonical-json.ts";
import type { ModelRecord, ModelRole } from "../../db/records.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import type { Preparation } from "./preparation.ts";
import type { RegisterModel } from "./schemas.ts";
import { type ModelResources, resolveDevice, resolvePrecision } from "./version.ts";

/** `found`: the server registered it by itself, so it gives way to whatever a caller registers under its id. */
export type StoredBody = RegisterModel & { found?: true };

export type Outcome =
  /** The same again. `claim`: until now the server's own find, from now on the caller's. */
  | { kind: "same"; claim: boolean }
  /** The id's other role, with the same shared settings. */
  | { kind: "join" }
  /** It takes the place of what the server found: a new version, with these bodies for the id's other roles. */
  | { kind: "replace"; others: [ModelRole, StoredBody][] }
  /** Fields that differ from what is registered. */
  | { kind: "conflict"; fields: string[] };

export interface Surroundings {
  locate: Preparation["locate"];
  resources: ModelResources;
  /** Of the registered model, where it is known: it decides what precision "auto" stands for. */
  checkpoint: Checkpoint | undefined;
}

export async function compareRegistration(
  known: ModelRecord,
  role: ModelRole,
  body: RegisterModel,
  surroundings: Surroundings,
): Promise<Outcome> {
  const { locate } = surroundings;
  const { found: _, ...mine } = (known.bodies[role] ?? {}) as Partial<StoredBody>;
  const isMineFound = isFound(known.bodies[role]);
  const wanted = await located(body, locate);
  if (known.bodies[role] !== undefined) {
    const fields = differences(await located(mine, locate), wanted);
    if (fields.length === 0) return { kind: "same", claim: isMineFound };
    if (!isMineFound) return { kind: "conflict", fields };
  }
  const others: [ModelRole, StoredBody][] = [];
  let joins = known.bodies[role] === undefined;
  for (const [other, stored] of Object.entries(known.bodies) as [ModelRole, StoredBody][]) {
    if (other === role) continue;
    const { found: __, ...theirs } = stored;
    const fields = differences(shared(await located(theirs, locate), surroundings), shared(wanted, surroundings));
    if (fields.length > 0 && !isFound(stored)) return { kind: "conflict", fields };
    if (fields.length > 0) joins = false;
    others.push([other, isFound(stored) ? { ...body, format: theirs.format, found: true } : stored]);
  }
  return joins ? { kind: "join" } : { kind: "replace", others };
}

function isFound(stored: unknown): boolean {
  return (stored as StoredBody | undefined)?.found === true;
}

type Fields = Record<string, unknown>;

/** With the place of its files instead of a name for it; where that leads nowhere (any more) the name stays. */
async function located(body: Partial<RegisterModel>, locate: Preparation["locate"]): Promise<Fields> {
  const model = body.model === undefined ? undefined : await locate(body.model).catch(() => body.model);
  return { ...body, model };
}

/** Settings that the roles of an id share; format, metadata and pinning may differ, "auto" is what it stands for. */
function shared(
  { format: _, metadata: __, pinned: ___, ...rest }: Fields,
  { checkpoint, resources }: Surroundings,
): Fields {
  const { precision, device } = rest as Pick<RegisterModel, "precision" | "device">;
  return {
    ...rest,
    precision: checkpoint ? resolvePrecision({ precision, device }, checkpoint, resources) : precision,
    device: resolveDevice(device),
  };
}

function differences(a: Fields, b: Fields): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].filter(
    (key) => canonicalJson(a[key]) !== canonicalJson(b[key]),
  );
}
