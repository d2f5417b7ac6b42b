/** What a schema cannot say about the fields of a registration. */
import type { ModelRole } from "../../db/records.ts";
import { fail } from "../../errors.ts";
import { isRemoteSource } from "../../model/source.ts";
import { formatProblem } from "../../rlt/formats.ts";
import type { RegisterModel, UpdateModel } from "./schemas.ts";

/** Throws `invalid_value` for the first that does not fit. */
export function refuseBadFields(role: ModelRole, body: RegisterModel): void {
  refuseFieldsOfOthers(body);
  if (typeof body.format === "string") return;
  const wrong = formatProblem(body.format, role);
  if (!wrong) return;
  throw fail("invalid_value", `format.${wrong.field}: ${wrong.problem}`, { param: `format.${wrong.field}` });
}

/** The same of a change. */
export function refuseBadChanges(source: string, { pinned }: UpdateModel): void {
  if (pinned && isRemoteSource(source)) throw fail("invalid_value", NOT_PINNED, { param: "pinned" });
}

const NOT_PINNED = "a remote model takes no memory here; leave it out";

/** Fields that only models from files have, or only those of remote servers. */
function refuseFieldsOfOthers(body: RegisterModel): void {
  const instead: Partial<Record<keyof RegisterModel, string>> = isRemoteSource(body.model)
    ? {
        precision: "how its weights are stored is the remote server's own affair; leave it out",
        device: "where it computes is the remote server's own affair; leave it out",
        pinned: NOT_PINNED,
      }
    : {
        credential: "a credential is for remote models; models from files need none, the hub uses HF_TOKEN",
        tokenizer: "a model from files brings its own tokenizer; this field is for remote models",
        tempered: "this field is for remote models; a checkpoint that is loaded here is scored at any temperature",
      };
  for (const [field, message] of Object.entries(instead)) {
    const value = body[field as keyof RegisterModel];
    if (value === undefined || value === "auto" || value === false) continue;
    throw fail("invalid_value", message, { param: field });
  }
}
