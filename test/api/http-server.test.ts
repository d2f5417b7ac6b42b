import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createLifecycle } from "../../src/http/lifecycle.ts";
import { type RunningServer, startServer } from "../../src/http/server.ts";
import { errorOf, testApp } from "./http-fixture.ts";

let server: RunningServer;
beforeAll(async () => {
  const lifecycle = createLifecycle();
  server = await startServer(testApp({ lifecycle }), { host: "127.0.0.1", port: 0, lifecycle });
});
afterAll(() => server.close(0));

/** Sends bytes as they are and returns everything that comes back. */
async function speak(text: string): Promise<string> {
  const socket = connect(server.port, "127.0.0.1");
  socket.end(text);
  let answer = "";
  socket.on("data", (chunk) => {
    answer += String(chunk);
  });
  await once(socket, "close");
  return answer;
}

test("port 0 picks a free port and the URL names it", async () => {
  expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
  expect(server.port).toBeGreaterThan(0);
  expect(await (await fetch(`${server.url}/healthz`)).json()).toEqual({ status: "ok" });
});

test("a taken port is an error that says what to do", async () => {
  const lifecycle = createLifecycle();
  const start = (host: string, port: number) => startServer(testApp(), { host, port, lifecycle });
  await expect(start("127.0.0.1", server.port)).rejects.toThrow(
    `Port ${server.port} on 127.0.0.1 is in use. Stop the other program, or set PRECEPTOR_PORT (0 picks a free port).`,
  );
  await expect(start("192.0.2.1", 0)).rejects.toThrow("192.0.2.1 is not an address of this machine");
});

test("what Node's parser refuses has our error shape", async () => {
  for (const [request, status] of [
    ["nonsense\r\n\r\n", 400],
    [`GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(40_000)}\r\n\r\n`, 431],
    ["GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n", 400],
    ["GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400],
  ] as const) {
    const answer = await speak(request);
    expect(answer, request.slice(0, 40)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    const [head, body = ""] = answer.split("\r\n\r\n");
    expect(head, request.slice(0, 40)).toMatch(/^x-request-id: req_/im);
    expect(JSON.parse(body), request.slice(0, 40)).toMatchObject({
      error: { type: "invalid_request_error", code: "invalid_request" },
    });
  }
});

test("a body over the limit is refused without reading it, and the server goes on", async () => {
  const big = { method: "POST", headers: { "content-type": "application/json" }, body: " ".repeat(20_000_000) };
  const response = await fetch(`${server.url}/v1/things/x`, big).catch((error: Error) => error);
  // The connection is closed on the sender; fetch either sees the answer or the closed connection.
  if (response instanceof Response)
    expect(await errorOf(response)).toMatchObject({ status: 413, code: "payload_too_large" });
  expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
  const answer = await speak(
    "POST /v1/things/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{",
  );
  expect(answer).toMatch(/^HTTP\/1.1 413 /);
  expect(answer).toContain('"code":"payload_too_large"');
});

test("a client that stops in the middle of its body disturbs nobody", async () => {
  const socket = connect(server.port, "127.0.0.1");
  socket.write(
    "POST /v1/things/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
  );
  await once(socket, "ready").catch(() => {});
  socket.destroy();
  expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
});
