import type { RouteModule } from "../http/context.ts";
import { type PageModel, renderPage } from "./page.ts";
import { SCRIPT } from "./script.ts";
import { STYLE } from "./style.ts";

const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export interface WebDeps {
  version: string;
  secured: boolean;
  listModels(): Promise<readonly PageModel[]>;
}

/** `GET /` and its two assets. */
export function webRoutes({ version, secured, listModels }: WebDeps): RouteModule {
  return (app) => {
    app.get("/", async (c) => {
      const models = await listModels().catch((error: unknown) => {
        c.var.log.warn({ err: error }, "the start page could not list the models");
        return null;
      });
      const { origin } = new URL(c.req.url);
      return c.html(renderPage({ version, models, origin, secured }), 200, {
        "content-security-policy": CSP,
        "cache-control": "no-store",
      });
    });
    const asset = (path: string, type: string, body: string): void => {
      app.get(path, (c) =>
        c.body(body, 200, { "content-type": `${type}; charset=utf-8`, "cache-control": "private, max-age=300" }),
      );
    };
    asset("/assets/page.css", "text/css", STYLE);
    asset("/assets/page.js", "text/javascript", SCRIPT);
  };
}
