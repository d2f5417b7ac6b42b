import { apiRoutes, type Services } from "../api/routes.ts";
import { createApp } from "../http/app.ts";
import { writeDocument } from "../http/openapi.ts";
import { VERSION } from "../version.ts";

/** Writes openapi.json and openapi.yaml. Only the routes are mounted: nothing is opened and no service is ever called. */
export async function writeOpenapi(directory: string): Promise<void> {
  const app = createApp({ routes: apiRoutes(UNCALLED), authenticate: null, version: VERSION });
  await writeDocument(app, VERSION, directory);
}

/** Routes take their services when mounted and call them when asked; a document asks nothing. */
const UNCALLED = { now: Date.now, random: Math.random } as unknown as Services;
