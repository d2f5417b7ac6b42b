import { Writable } from "node:stream";
import { describe, expect, test } from "vitest";
import { CATALOGUE } from "../../src/errors.ts";
import { createLogger } from "../../src/http/log.ts";
import { errorOf, testApp } from "./http-fixture.ts";

const app = testApp();
const JSON_TYPE = { "content-type": "application/json" };

function post(
  body: string | Uint8Array | ReadableStream | object,
  headers: Record<string, string> = JSON_TYPE,
  path = "/v1/things/x",
) {
  const raw = typeof body === "string" || body instanceof Uint8Array || body instanceof ReadableStream;
  const init = { method: "POST", headers, body: raw ? body : JSON.stringify(body), duplex: "half" };
  return Promise.resolve(app.request(path, init as RequestInit));
}

describe("validation", () => {
  test.each([
    ["a wrong type", { question: 1 }, "invalid_value", "question", "question: expected string, received number"],
    ["a missing field", {}, "invalid_value", "question", "question is required (string)"],
    [
      "a nested field",
      { question: "q", items: [{ question: "" }, {}] },
      "invalid_value",
      "items.1.question",
      "items.1.question is required (string)",
    ],
    [
      "a number out of range",
      { question: "q", temperature: 3 },
      "invalid_value",
      "temperature",
      "temperature: Too big: expected number to be <=2",
    ],
    [
      "a list too long",
      { question: "q", items: [1, 2, 3, 4] },
      "invalid_value",
      "items",
      "items: at most 3 items, got 4",
    ],
    [
      "a bad token id",
      { question: "q", prompt: [1, -1] },
      "invalid_value",
      "prompt.1",
      "prompt.1: expected a token id (an integer from 0)",
    ],
    [
      "the wrong kind altogether",
      { question: "q", prompt: {} },
      "invalid_value",
      "prompt",
      "prompt: expected string, received object, or expected array, received object",
    ],
    [
      "a wrong choice",
      { question: "q", format: "r2" },
      "invalid_value",
      "format",
      'format: Invalid option: expected one of "stratos"|"r1"',
    ],
    [
      "a field inside a choice",
      { question: "q", format: { prefix: 1 } },
      "invalid_value",
      "format.prefix",
      "format.prefix: expected string, received number",
    ],
    [
      "too many pairs of metadata",
      { question: "q", metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [i, ""])) },
      "invalid_value",
      "metadata",
      "metadata: at most 16 pairs",
    ],
    [
      "a long value in metadata",
      { question: "q", metadata: { a: "x".repeat(513) } },
      "invalid_value",
      "metadata.a",
      "metadata.a: Too big: expected string to have <=512 characters",
    ],
    [
      "a long key in metadata",
      { question: "q", metadata: { ["k".repeat(65)]: "" } },
      "invalid_value",
      "metadata",
      "metadata: keys must have 1 to 64 characters",
    ],
    ["not an object", [], "invalid_value", null, "expected object, received array"],
    [
      "an unknown field, which explains the missing one",
      { queston: "q" },
      "unknown_parameter",
      "queston",
      'Unknown parameter "queston". Did you mean "question"?; question is required (string)',
    ],
    [
      "an unknown field inside",
      { question: "q", items: [{ question: "q", foo: 1 }] },
      "unknown_parameter",
      "items.0.foo",
      'items.0: Unknown parameter "foo". Known here: question.',
    ],
  ])("%s", async (_, body, code, param, message) => {
    expect(await errorOf(await post(body))).toEqual({
      status: 400,
      type: "invalid_request_error",
      code,
      param,
      message,
    });
  });

  test("an own __proto__ is an unknown field, not a prototype", async () => {
    expect(await errorOf(await post('{"question":"q","__proto__":{"solution":"s"}}'))).toMatchObject({
      code: "unknown_parameter",
      param: "__proto__",
    });
  });

  test("metadata never lose a key in silence", async () => {
    expect(await errorOf(await post('{"question":"q","metadata":{"a":"b","__proto__":"x"}}'))).toMatchObject({
      code: "invalid_value",
      param: "metadata",
      message: "metadata: __proto__ cannot be a key; choose another name",
    });
  });

  test("a value of the wrong type has one fault, however many rules it breaks", async () => {
    expect(await errorOf(await post({ question: "q", items: "four" }))).toMatchObject({
      message: "items: expected array, received string",
    });
    expect(await errorOf(await app.request("/v1/things?limit=x"))).toMatchObject({
      message: "limit: expected a number",
    });
  });

  test("a path parameter and a query are judged too", async () => {
    expect(await errorOf(await post({ question: "q" }, JSON_TYPE, "/v1/things/a%20b"))).toMatchObject({
      status: 400,
      param: "id",
    });
    expect(await errorOf(await app.request("/v1/things?limt=5"))).toMatchObject({
      code: "unknown_parameter",
      param: "limt",
    });
    for (const limit of ["0", "101", "1.5", "x", ""]) {
      expect(await errorOf(await app.request(`/v1/things?limit=${limit}`))).toMatchObject({
        status: 400,
        param: "limit",
      });
    }
  });

  test("a million wrong elements cost no time and one line", async () => {
    const begin = performance.now();
    const body = { question: "q", prompt: new Array(1_000_000).fill("x"), items: new Array(100_000).fill({}) };
    const { status, message } = await errorOf(await post(body));
    expect(status).toBe(400);
    expect(message.length).toBeLessThan(300);
    // Element by element this took over ten seconds.
    expect(performance.now() - begin).toBeLessThan(3_000);
  });
});

describe("the body", () => {
  test.each([
    ["cut off", '{"question": "q', "invalid_json"],
    ["empty", "", "invalid_json"],
    ["not UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), "invalid_json"],
    ["nested without end", "[".repeat(1_000_000), "invalid_json"],
    ["of very many values", `[${"1,".repeat(2_000_001)}1]`, "invalid_json"],
  ])("%s", async (_, body, code) => {
    expect(await errorOf(await post(body))).toMatchObject({ status: 400, type: "invalid_request_error", code });
  });

  test("brackets and quotes inside strings count for nothing", async () => {
    const question = '["{\\'.repeat(200);
    const response = await post({ question });
    expect(response.status).toBe(201);
    expect(await response.json()).toEqual({ question });
  });

  test("larger than the limit, stated or not", async () => {
    const tooLarge = { status: 413, code: "payload_too_large", type: "invalid_request_error", param: null };
    const text = JSON.stringify({ question: "x".repeat(9 * 1024 * 1024) });
    expect(await errorOf(await post(text, { ...JSON_TYPE, "content-length": String(text.length) }))).toMatchObject(
      tooLarge,
    );
    let produced = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        produced += 65_536;
        controller.enqueue(new Uint8Array(65_536).fill(32));
      },
    });
    expect(await errorOf(await post(endless))).toMatchObject(tooLarge);
    expect(produced).toBeLessThan(10 * 1024 * 1024);
  });

  test("of another type", async () => {
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]) {
      expect(await errorOf(await post("{}", { "content-type": type }))).toMatchObject({
        status: 415,
        code: "unsupported_media_type",
      });
    }
    const bytes = new TextEncoder().encode("{}");
    expect(await errorOf(await post(bytes, {}))).toMatchObject({ status: 415, code: "unsupported_media_type" });
    expect(await errorOf(await post(bytes, { ...JSON_TYPE, "content-encoding": "gzip" }))).toMatchObject({
      status: 415,
    });
  });

  test("missing altogether", async () => {
    expect(await errorOf(await app.request("/v1/things/x", { method: "POST" }))).toMatchObject({ status: 400 });
  });
});

describe("routes", () => {
  test("an unknown one is 404 and names the nearest", async () => {
    expect(await errorOf(await app.request("/v1/thing"))).toEqual({
      status: 404,
      type: "not_found_error",
      code: "not_found",
      param: null,
      message: "There is no /v1/thing. Did you mean /v1/things?",
    });
    expect(await errorOf(await app.request("/nothing/of/the/kind"))).toMatchObject({ status: 404, code: "not_found" });
  });

  test("a known one with another method is 405 with Allow", async () => {
    for (const method of ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
      const response = await app.request("/v1/things/x", { method });
      expect(response.headers.get("allow")).toBe("POST");
      expect(await errorOf(response)).toMatchObject({ status: 405, code: "method_not_allowed" });
    }
    expect((await app.request("/v1/things", { method: "POST" })).headers.get("allow")).toBe("GET, HEAD");
    expect((await app.request("/v1/things", { method: "HEAD" })).status).toBe(200);
  });
});

describe("what handlers throw", () => {
  test("an unknown error tells the request id and nothing else, and is logged with its stack", async () => {
    const lines: string[] = [];
    const output = new Writable({
      write(chunk, _, done) {
        lines.push(String(chunk));
        done();
      },
    });
    const logged = testApp({ log: createLogger({ level: "info", format: "json" }, output) });
    const response = await logged.request("/v1/fault", {
      headers: { "x-request-id": "trace-1", authorization: "Bearer very-secret" },
    });
    expect(response.headers.get("x-request-id")).toBe("trace-1");
    const error = await errorOf(response);
    expect(error).toMatchObject({ status: 500, type: "server_error", code: "internal_error" });
    expect(error.message).toContain("trace-1");
    expect(error.message).not.toContain("secret");
    const [fault, request] = lines.map((line) => JSON.parse(line));
    expect(fault).toMatchObject({ level: 50, request_id: "trace-1", err: { message: "select secret from keys" } });
    expect(fault.err.stack).toContain("http-fixture");
    expect(request).toMatchObject({
      msg: "request",
      method: "GET",
      path: "/v1/fault",
      status: 500,
      request_id: "trace-1",
    });
    expect(lines.join("")).not.toContain("very-secret");
  });

  test("a conflict is not retried; a full queue says when to come back", async () => {
    const conflict = await post({ question: "q" }, JSON_TYPE, "/v1/things/taken");
    expect(conflict.status).toBe(409);
    expect(conflict.headers.get("x-should-retry")).toBe("false");
    const busy = await app.request("/v1/busy");
    expect(busy.status).toBe(429);
    expect(busy.headers.get("retry-after")).toBe("7");
  });

  test("every code of the catalogue is a status a response can have", () => {
    for (const [status] of Object.values(CATALOGUE)) expect(new Response(null, { status }).status).toBe(status);
  });
});

describe("x-request-id", () => {
  test("is on every response; a forged one is replaced", async () => {
    for (const path of ["/v1/things", "/nowhere", "/healthz", "/v1/fault"]) {
      const response = await app.request(path, { headers: { "x-request-id": 'a b"{}' } });
      expect(response.headers.get("x-request-id")).toMatch(/^req_[0-9a-z]{24}$/);
    }
  });
});

describe("numbers", () => {
  test("that are not finite become null, and in tests an error", async () => {
    expect(await (await app.request("/v1/nan")).json()).toEqual({ value: null });
    expect((await testApp({ strictJson: true }).request("/v1/nan")).status).toBe(500);
  });
});
