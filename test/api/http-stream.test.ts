import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { fail } from "../../src/errors.ts";
import { createLifecycle } from "../../src/http/lifecycle.ts";
import { type RunningServer, startServer } from "../../src/http/server.ts";
import type { EventStream } from "../../src/http/sse.ts";
import { errorOf, type Hooks, testApp } from "./http-fixture.ts";

interface Event {
  event: string | undefined;
  id: string | undefined;
  data: Record<string, unknown>;
}

function parse(text: string): Event[] {
  return text
    .split("\n\n")
    .filter((block) => block !== "" && !block.startsWith(":"))
    .map((block) => {
      const field = (name: string) => block.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
      return { event: field("event"), id: field("id"), data: JSON.parse(field("data") ?? "null") };
    });
}

const servers: RunningServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close(0);
});

async function serve(hooks: Hooks): Promise<RunningServer> {
  const lifecycle = createLifecycle();
  const server = await startServer(testApp({ lifecycle }, hooks), { host: "127.0.0.1", port: 0, lifecycle });
  servers.push(server);
  return server;
}

describe("the format", () => {
  test("events are typed and numbered", async () => {
    const response = await testApp().request("/v1/streams", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ n: 2, stream: true }),
    });
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(parse(await response.text())).toEqual([
      { event: "thing.delta", id: "0", data: { type: "thing.delta", sequence_number: 0, i: 0 } },
      { event: "thing.delta", id: "1", data: { type: "thing.delta", sequence_number: 1, i: 1 } },
      { event: "thing.completed", id: "2", data: { type: "thing.completed", sequence_number: 2, value: 2 } },
    ]);
  });

  test("the OpenAI dialect: bare data lines and [DONE], or an error and no [DONE]", async () => {
    const app = testApp();
    expect(await (await app.request("/v1/data")).text()).toBe(
      'data: {"letter":"a"}\n\ndata: {"letter":"b"}\n\ndata: [DONE]\n\n',
    );
    const failed = await (await app.request("/v1/data?fail=1")).text();
    expect(failed).toMatch(/^data: \{"letter":"a"\}\n\ndata: \{"letter":"b"\}\n\ndata: \{"error":\{[^\n]*\}\}\n\n$/);
    expect(failed).toContain('"code":"engine_failed"');
    expect(failed).not.toContain("[DONE]");
  });

  test("silence is filled with pings", async () => {
    const events = async ({ send }: EventStream) => {
      await send("a", {});
      await sleep(180);
    };
    const text = await (await testApp({}, { events }).request("/v1/events")).text();
    expect(text.match(/^: ping$/gm)?.length).toBeGreaterThanOrEqual(2);
    expect(parse(text)).toHaveLength(1);
  });
});

describe("errors", () => {
  test("before the first event it is an ordinary response", async () => {
    const events = async () => {
      throw fail("model_not_found", "There is no teacher of this name.", { param: "teacher" });
    };
    expect(await errorOf(await testApp({}, { events }).request("/v1/events"))).toMatchObject({
      status: 404,
      code: "model_not_found",
      param: "teacher",
    });
  });

  test("later it is the last event, and what was not meant for clients stays here", async () => {
    const events = async ({ send }: EventStream) => {
      await send("a", {});
      throw new Error("select secret from keys");
    };
    const text = await (await testApp({}, { events }).request("/v1/events")).text();
    expect(parse(text).at(-1)).toMatchObject({
      event: "error",
      id: "1",
      data: { type: "error", sequence_number: 1, error: { code: "internal_error", type: "server_error", param: null } },
    });
    expect(text).not.toContain("secret");
  });
});

describe("a client that leaves", () => {
  test("aborts the work of its stream within a second", async () => {
    let left: Promise<unknown> | undefined;
    let cleaned = false;
    async function* work(signal: AbortSignal) {
      try {
        for (let i = 0; ; i++) {
          yield i;
          await sleep(20, undefined, { signal }).catch(() => {});
        }
      } finally {
        cleaned = true;
      }
    }
    const server = await serve({
      events: async ({ signal, send }) => {
        left = once(signal, "abort");
        for await (const i of work(signal)) await send("tick", { i });
      },
    });
    const socket = connect(server.port, "127.0.0.1");
    socket.write("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await once(socket, "data");
    const begin = performance.now();
    socket.destroy();
    await left;
    await sleep(50);
    expect(cleaned).toBe(true);
    expect(performance.now() - begin).toBeLessThan(1_000);
  });

  test("aborts the signal before the first event, and of a plain request", async () => {
    const json = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    const requests = ["GET /v1/events", "GET /v1/wait", "POST /v1/events", "POST /v1/wait"];
    for (const request of requests) {
      let seen: AbortSignal | undefined;
      let left: Promise<unknown> | undefined;
      const wait = (signal: AbortSignal) => {
        seen = signal;
        left = once(signal, "abort");
      };
      const server = await serve({
        waiting: wait,
        events: async ({ signal }) => {
          wait(signal);
          await left;
        },
      });
      const socket = connect(server.port, "127.0.0.1");
      const [head, body] = request.startsWith("POST") ? [json, "{}"] : ["", ""];
      socket.write(`${request} HTTP/1.1\r\nHost: localhost\r\n${head}\r\n${body}`);
      while (!seen) await sleep(5);
      const begin = performance.now();
      socket.destroy();
      await left;
      expect(performance.now() - begin, request).toBeLessThan(1_000);
    }
  });

  test("a finished request aborts nothing", async () => {
    const seen: AbortSignal[] = [];
    const server = await serve({
      events: async ({ signal, send }) => {
        seen.push(signal);
        await send("done", {});
      },
    });
    await (await fetch(`${server.url}/v1/events`)).text();
    await sleep(50);
    expect(seen.map((signal) => signal.aborted)).toEqual([false]);
  });

  test("one that does not read is waited for, not buffered for", async () => {
    let sent = 0;
    const server = await serve({
      events: async ({ signal, send }) => {
        while (!signal.aborted && sent < 2_000) {
          await send("block", { text: "x".repeat(64 * 1024) });
          sent++;
        }
      },
    });
    const socket = connect(server.port, "127.0.0.1");
    socket.pause();
    socket.write("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await sleep(700);
    const stuckAt = sent;
    await sleep(300);
    expect(sent).toBe(stuckAt);
    // What the two sockets' buffers hold; 2,000 blocks would be 128 MB.
    expect(stuckAt).toBeLessThan(400);
    socket.resume();
    while (sent === stuckAt) await sleep(10);
    socket.destroy();
  });
});

describe("the end of the server", () => {
  test("waits for what is under way and refuses what is new", async () => {
    let finish = (): void => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const server = await serve({
      events: async ({ send }) => {
        await send("begin", {});
        await finished;
        await send("end", {});
      },
    });
    const response = await fetch(`${server.url}/v1/events`);
    const closing = server.close(10_000);
    const refused = await fetch(`${server.url}/v1/things`);
    expect(refused.headers.get("retry-after")).toBe("5");
    expect(await errorOf(refused)).toMatchObject({ status: 503, type: "unavailable_error", code: "draining" });
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    const ready = await fetch(`${server.url}/readyz`);
    expect(ready.status).toBe(503);
    expect(await ready.json()).toEqual({ status: "not_ready", checks: { server: "draining" } });
    finish();
    expect(parse(await response.text()).map(({ event }) => event)).toEqual(["begin", "end"]);
    await closing;
    await expect(fetch(`${server.url}/healthz`)).rejects.toThrow();
  });

  test("after the grace period streams end with an error event, and nothing hangs", async () => {
    const server = await serve({
      events: async ({ send, signal }) => {
        await send("begin", {});
        await once(signal, "abort");
        throw fail("cancelled", "stopped");
      },
    });
    const stuck = fetch(`${server.url}/v1/wait`).catch((error: Error) => error);
    const response = await fetch(`${server.url}/v1/events`);
    const begin = performance.now();
    await server.close(100);
    expect(performance.now() - begin).toBeLessThan(3_000);
    expect(parse(await response.text()).at(-1)).toMatchObject({
      event: "error",
      data: { error: { code: "draining" } },
    });
    expect(await stuck).toBeInstanceOf(Error);
  });
});
