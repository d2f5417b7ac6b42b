import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createKeyAuthenticator } from "../../src/http/auth.ts";
import type { ApiApp } from "../../src/http/context.ts";
import { createMetrics } from "../../src/http/metrics.ts";
import { buildDocument, writeDocument } from "../../src/http/openapi.ts";
import type { PageModel } from "../../src/web/page.ts";
import { webRoutes } from "../../src/web/routes.ts";
import { testApp, thingRoutes } from "./http-fixture.ts";

describe("lists", () => {
  test("have the shape of the API", async () => {
    const app = testApp();
    expect(await (await app.request("/v1/things?limit=2")).json()).toEqual({
      object: "list",
      data: [
        { id: "thing_0", value: null },
        { id: "thing_1", value: 1 },
      ],
      first_id: "thing_0",
      last_id: "thing_1",
      has_more: true,
    });
    expect(await (await app.request("/v1/things")).json()).toMatchObject({ last_id: "thing_2", has_more: false });
  });
});

describe("probes", () => {
  test("readiness says what is missing, within its time limit", async () => {
    let up = true;
    const app = testApp({
      checks: {
        database: async () => {
          if (!up) throw new Error("connection to 10.1.2.3 refused");
        },
      },
    });
    expect(await (await app.request("/readyz")).json()).toEqual({
      status: "ready",
      checks: { database: "ok", server: "ok" },
    });
    up = false;
    const response = await app.request("/readyz");
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toBe("5");
    expect(await response.json()).toEqual({ status: "not_ready", checks: { database: "failed", server: "ok" } });
    expect((await app.request("/healthz")).status).toBe(200);
  });

  test("a check that hangs counts as failed", async () => {
    const app = testApp({ checks: { database: () => new Promise(() => {}) } });
    expect((await app.request("/readyz")).status).toBe(503);
  });

  test("the version is told", async () => {
    expect(await (await testApp({ version: "1.2.3" }).request("/version")).json()).toMatchObject({ version: "1.2.3" });
  });
});

describe("metrics", () => {
  test("requests are counted by route, whatever callers make up", async () => {
    const metrics = createMetrics();
    metrics.gauge("preceptor_test_level", "A gauge of another part", () => 42);
    const app = testApp({ metrics });
    await app.request("/v1/things?limit=1");
    await app.request("/v1/things?limit=0");
    for (let i = 0; i < 3; i++) await app.request(`/made/up/${i}`);
    await app.request("/v1/things/a", { method: "PUT" });
    const response = await app.request("/metrics");
    expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=/);
    const text = await response.text();
    expect(text).toContain('preceptor_http_requests_total{method="GET",route="/v1/things",status="200"} 1');
    expect(text).toContain('preceptor_http_requests_total{method="GET",route="/v1/things",status="400"} 1');
    expect(text).toContain('preceptor_http_requests_total{method="GET",route="unmatched",status="404"} 3');
    expect(text).toContain('preceptor_http_requests_total{method="PUT",route="unmatched",status="405"} 1');
    expect(text).toContain('preceptor_http_request_duration_seconds_count{method="GET",route="/v1/things"} 2');
    expect(text).toContain("preceptor_test_level 42");
  });

  test("a stream counts when it ends", async () => {
    const app = testApp();
    await (await app.request("/v1/data")).text();
    const text = await (await app.request("/metrics")).text();
    expect(text).toContain('preceptor_http_requests_total{method="GET",route="/v1/data",status="200"} 1');
  });
});

describe("the OpenAPI document", () => {
  test("has the routes, the shared error and the key", async () => {
    const app = testApp({ version: "1.2.3" });
    const response = await app.request("/openapi.json");
    expect(response.headers.get("content-type")).toBe("application/json");
    const document = JSON.parse(await response.text());
    expect(document).toMatchObject({ openapi: "3.1.0", info: { title: "Preceptor", version: "1.2.3" } });
    expect(document.security).toEqual([{ bearer: [] }]);
    expect(document.components.securitySchemes.bearer).toMatchObject({ type: "http", scheme: "bearer" });
    expect(document.tags.map(({ name }: { name: string }) => name)).toEqual(["Explanations", "Scores", "Server"]);
    expect(document.paths["/healthz"].get.security).toEqual([]);
    const create = document.paths["/v1/things/{id}"].post;
    expect(create.operationId).toBe("postThingsById");
    expect(create.requestBody).toMatchObject({ required: true });
    expect(create.responses.default).toEqual({ $ref: "#/components/responses/Error" });
    expect(document.components.schemas.Error.properties.error.required).toEqual(["message", "type", "param", "code"]);
    const body = document.components.schemas.CreateThing;
    expect(body.additionalProperties).toBe(false);
    expect(body.required).toEqual(["question"]);
    expect(body.properties.items).toMatchObject({ type: "array", maxItems: 3 });
    expect(body.properties.prompt.anyOf[1]).toMatchObject({ type: "array", items: { type: "integer" }, maxItems: 5 });
    expect(body.properties.metadata).toMatchObject({ type: "object", maxProperties: 16 });
    const limit = document.paths["/v1/things"].get.parameters.find((p: { name: string }) => p.name === "limit");
    expect(limit.schema).toMatchObject({ type: "integer", minimum: 1, maximum: 100, default: 20 });
    expect(document.paths["/v1/streams"].post.responses["200"].content).toHaveProperty("text/event-stream");
  });

  test("every $ref leads somewhere", () => {
    const document = buildDocument(testApp(), "1");
    const text = JSON.stringify(document);
    const refs = [...text.matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path]) => path?.split("/") ?? []);
    expect(refs.length).toBeGreaterThan(5);
    for (const path of refs) {
      expect(
        path.reduce<unknown>((node, key) => (node as Record<string, unknown>)?.[key], document),
        path.join("/"),
      ).toBeTruthy();
    }
  });

  test("is written the same every time, as JSON and YAML", async () => {
    const directory = await mkdtemp(join(tmpdir(), "preceptor-openapi-"));
    const written = async (app: ApiApp) => {
      await writeDocument(app, "1", directory);
      return [
        await readFile(join(directory, "openapi.json"), "utf8"),
        await readFile(join(directory, "openapi.yaml"), "utf8"),
      ];
    };
    const [json = "", yaml = ""] = await written(testApp());
    expect(await written(testApp())).toEqual([json, yaml]);
    expect(JSON.parse(json).paths).toHaveProperty("/v1/things");
    expect(json.endsWith("}\n")).toBe(true);
    expect(yaml).toMatch(/^openapi: 3\.1\.0\n/);
    expect(yaml).toContain("  /v1/things:\n");
    await rm(directory, { recursive: true });
  });
});

/** Every address a page loads by itself. */
function loaded(html: string): string[] {
  return [...html.matchAll(/<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"/g)].map(([, url]) => url ?? "");
}

describe("/docs", () => {
  test("loads nothing from elsewhere and nothing inline", async () => {
    const app = testApp();
    const response = await app.request("/docs");
    expect(response.headers.get("content-security-policy")).toMatch(/default-src 'none'; script-src 'self';/);
    const html = await response.text();
    expect(html).not.toMatch(/<script>/);
    expect(loaded(html).length).toBe(4);
    for (const url of loaded(html)) {
      expect(url).toMatch(/^\/docs\/assets\//);
      expect((await app.request(url)).status, url).toBe(200);
    }
    expect((await app.request("/docs/assets/swagger-ui-bundle.js")).headers.get("content-type")).toMatch(/javascript/);
    for (const path of ["package.json", "..%2fpackage.json", "constructor"]) {
      expect((await app.request(`/docs/assets/${path}`)).status).toBe(404);
    }
  });
});

describe("/", () => {
  const models: PageModel[] = [
    { id: "smollm2", roles: ["student"], status: "ready" },
    { id: "<i>teach</i>", roles: ["teacher"], status: "unloaded" },
  ];
  const page = (listModels: () => Promise<PageModel[]>, secured = false) => {
    const authenticate = secured ? createKeyAuthenticator("key") : null;
    const web = webRoutes({ version: "1.2.3", secured, listModels });
    return testApp({ authenticate, routes: [thingRoutes(), web] });
  };

  test("leads to the docs and shows a request for a model that is there", async () => {
    const app = page(async () => models);
    const response = await app.request("http://localhost:8080/");
    const csp = response.headers.get("content-security-policy") ?? "";
    expect(csp).toContain("script-src 'self'; style-src 'self'");
    expect(csp).not.toContain("unsafe-inline");
    const html = await response.text();
    expect(html).toContain('href="/docs"');
    expect(html).toContain("1.2.3");
    expect(html).toContain("&quot;student&quot;: &quot;smollm2&quot;");
    expect(html).toContain("curl http://localhost:8080/v1/scores");
    expect(html).not.toContain("<i>teach");
    expect(html).not.toContain("Authorization");
    for (const url of loaded(html).filter((url) => url !== "data:,")) {
      expect(url).toMatch(/^\/assets\//);
      expect((await app.request(url)).status, url).toBe(200);
    }
  });

  test("without models it shows how to register one; without a database it still comes", async () => {
    const empty = await (await page(async () => []).request("/")).text();
    expect(empty).toContain("/v1/teachers");
    expect(empty).toContain("/v1/students");
    const broken = page(async () => {
      throw new Error("connection refused");
    });
    const response = await broken.request("/");
    expect(response.status).toBe(200);
    expect(await response.text()).toContain("cannot be read right now");
  });

  test("with a key the commands carry it by variable, never by value", async () => {
    const app = page(async () => models, true);
    const html = await (await app.request("/", { headers: { authorization: "Bearer key" } })).text();
    expect(html).toContain("Authorization: Bearer $PRECEPTOR_API_KEY");
    expect(html).not.toContain("Bearer key");
  });
});
