/** `/docs`: Swagger UI from node_modules, so that it works with no network; no inline script, so that a CSP holds. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { RouteModule } from "./context.ts";

const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preceptor API</title>
<link rel="icon" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start.js"></script>
</body>
</html>
`;

const START = `window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
`;

const FILES: Readonly<Record<string, string>> = {
  "swagger-ui.css": "text/css; charset=utf-8",
  "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
  "favicon-32x32.png": "image/png",
};

/** A new version of the server brings new files under the same names, so browsers ask again after an hour. */
const CACHE_CONTROL = "private, max-age=3600";

export function docsRoutes(): RouteModule {
  const directory = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));
  return (app) => {
    app.get("/docs", (c) => c.html(PAGE, 200, { "content-security-policy": CSP }));
    app.get("/docs/assets/start.js", (c) => c.body(START, 200, { "content-type": "text/javascript; charset=utf-8" }));
    app.get("/docs/assets/:file", async (c) => {
      const name = c.req.param("file");
      const type = Object.hasOwn(FILES, name) ? FILES[name] : undefined;
      if (type === undefined) return c.notFound();
      const headers = { "content-type": type, "cache-control": CACHE_CONTROL };
      return c.body(await readFile(join(directory, name)), 200, headers);
    });
  };
}
