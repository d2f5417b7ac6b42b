import { describe, expect, test } from "vitest";
import { createKeyAuthenticator } from "../../src/http/auth.ts";
import type { Principal } from "../../src/http/context.ts";
import { webRoutes } from "../../src/web/routes.ts";
import { errorOf, testApp, thingRoutes } from "./http-fixture.ts";

const KEY = "a-key-of-some-length";
const page = webRoutes({ version: "1", secured: true, listModels: async () => [] });
const app = testApp({ authenticate: createKeyAuthenticator(KEY), routes: [thingRoutes(), page] });
const bearer = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });
const basic = (key: string) => ({ headers: { authorization: `Basic ${btoa(`me:${key}`)}` } });

describe("with a key", () => {
  test("every route needs it, but the probes", async () => {
    for (const path of ["/healthz", "/readyz"]) expect((await app.request(path)).status).toBe(200);
    for (const path of ["/v1/things", "/version", "/metrics", "/docs", "/openapi.json", "/", "/nowhere"]) {
      const response = await app.request(path);
      expect(response.headers.get("www-authenticate"), path).toBeTruthy();
      expect(await errorOf(response), path).toMatchObject({
        status: 401,
        type: "authentication_error",
        code: "missing_api_key",
      });
    }
  });

  test("the right one opens, any other does not", async () => {
    const response = await app.request("/v1/things", bearer(KEY));
    expect(response.status).toBe(200);
    expect(response.headers.get("www-authenticate")).toBeNull();
    expect((await app.request("/v1/things", { headers: { authorization: `bearer   ${KEY} ` } })).status).toBe(200);
    for (const key of ["wrong", `${KEY}x`, KEY.slice(1), KEY.toUpperCase()]) {
      expect(await errorOf(await app.request("/v1/things", bearer(key)))).toMatchObject({
        status: 401,
        code: "invalid_api_key",
      });
    }
    for (const authorization of ["", "Bearer", "Bearer ", KEY, `Token ${KEY}`]) {
      expect((await app.request("/v1/things", { headers: { authorization } })).status).toBe(401);
    }
  });

  test("a browser may open the pages with the key as password, and nothing else", async () => {
    expect((await app.request("/docs")).headers.get("www-authenticate")).toMatch(/^Basic realm=/);
    for (const path of ["/", "/docs", "/openapi.json", "/assets/page.css", "/docs/assets/swagger-ui.css"]) {
      expect((await app.request(path, basic(KEY))).status, path).toBe(200);
      expect((await app.request(path, basic("wrong"))).status, path).toBe(401);
    }
    expect((await app.request("/v1/things", basic(KEY))).status).toBe(401);
  });

  test("a key with other scopes is refused by name; admin may do everything", async () => {
    const principals: Record<string, Principal> = {
      explainer: { id: "key_1", scopes: new Set(["explain"]) },
      boss: { id: "key_2", scopes: new Set(["admin"]) },
    };
    const scoped = testApp({ authenticate: async (key) => principals[key] ?? null });
    expect(await errorOf(await scoped.request("/v1/train", bearer("explainer")))).toMatchObject({
      status: 403,
      type: "permission_error",
      code: "insufficient_scope",
    });
    expect(await (await scoped.request("/v1/train", bearer("boss"))).json()).toEqual({ by: "key_2" });
  });

  test("metrics may be opened for loopback, by the address of the socket alone", async () => {
    const open = testApp({ authenticate: createKeyAuthenticator(KEY), metricsOpenOnLoopback: true });
    const from = (remoteAddress: string) =>
      open.request(
        "/metrics",
        { headers: { "x-forwarded-for": "127.0.0.1" } },
        { incoming: { socket: { remoteAddress } } },
      );
    expect((await from("127.0.0.1")).status).toBe(200);
    expect((await from("10.0.0.7")).status).toBe(401);
    expect((await open.request("/metrics")).status).toBe(401);
  });
});

describe("without a key", () => {
  const open = testApp({ corsOrigins: ["https://app.example.org"] });

  test("only loopback names are answered", async () => {
    for (const host of ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"]) {
      expect((await open.request(`http://${host}/v1/things`)).status, host).toBe(200);
    }
    for (const host of ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:8080"]) {
      expect(await errorOf(await open.request(`http://${host}/v1/things`)), host).toMatchObject({
        status: 403,
        code: "origin_not_allowed",
      });
    }
  });

  test("other web origins are refused unless allowed, and only those get CORS headers", async () => {
    const from = (origin: string, method = "GET") =>
      open.request("http://localhost:8080/v1/things", { method, headers: { origin } });
    expect((await from("http://localhost:8080")).status).toBe(200);
    expect(await errorOf(await from("https://evil.example"))).toMatchObject({
      status: 403,
      code: "origin_not_allowed",
    });
    const allowed = await from("https://app.example.org");
    expect(allowed.status).toBe(200);
    expect(allowed.headers.get("access-control-allow-origin")).toBe("https://app.example.org");
    expect((await from("https://app.example.org", "OPTIONS")).status).toBe(204);
  });
});
