import { CliError, usage } from "../errors.ts";
import type { Client } from "../server/client.ts";
import type { ListBody, ModelBody } from "../server/types.ts";

/** Pages asked of a list before giving up: 100 per page, so 10,000 models. */
const MAX_PAGES = 100;

export async function listModels(
  client: Client,
  role: "teachers" | "students",
  signal: AbortSignal,
): Promise<ModelBody[]> {
  const models: ModelBody[] = [];
  let after = "";
  for (let page = 0; page < MAX_PAGES; page++) {
    const query = `?limit=100${after}`;
    const list = await client.json<ListBody<ModelBody>>("GET", `/v1/${role}${query}`, { signal });
    models.push(...list.data);
    if (!list.has_more || !list.last_id) break;
    after = `&after=${encodeURIComponent(list.last_id)}`;
  }
  return models;
}

/** The named model, or the only one there is: a newcomer with one model names nothing. */
export async function chooseModel(
  client: Client,
  role: "teacher" | "student",
  named: string | undefined,
  signal: AbortSignal,
): Promise<string> {
  if (named !== undefined) return named;
  const models = await listModels(client, `${role}s`, signal);
  if (models.length === 1) return models[0]!.id;
  if (models.length === 0) {
    throw new CliError(
      `No ${role} is registered. Put a checkpoint into ./models and restart the server, or POST /v1/${role}s (see ${client.url}/docs).`,
    );
  }
  const names = models.slice(0, 10).map((model) => model.id);
  throw usage(
    `Several ${role}s are registered; name one with --${role}: ${names.join(", ")}${models.length > 10 ? ", …" : ""}.`,
  );
}
