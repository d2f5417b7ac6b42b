/** What a server may make us wait for, and read: it drips, never ends, or answers in depths. */
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test, vi } from "vitest";
import { type Connection, createConnection } from "../../../src/engine/openai/connection.ts";
import type { RemoteFailure } from "../../../src/engine/openai/failure.ts";
import { createHttp } from "../../../src/engine/openai/http.ts";
import { eventually } from "./fixture.ts";

vi.mock("../../../src/engine/openai/limits.ts", async (original) => {
  const { IMPATIENT } = await import("./quick-limits.ts");
  return { ...(await original<object>()), ...IMPATIENT };
});

const KEY = "sk-0123456789";
const SSE = { "content-type": "text/event-stream" };
const MEBIBYTE = 1024 * 1024;

interface Serving {
  connection: Connection;
  /** Connections that were made, and that are open. */
  seen: { made: number; open: number; bytes: number };
}

async function serve(answer: (response: ServerResponse) => unknown): Promise<Serving> {
  const seen = { made: 0, open: 0, bytes: 0 };
  const server = createServer((request, response) => {
    request.resume();
    response.on("error", () => undefined);
    void answer(response);
  });
  server.on("connection", (socket) => {
    seen.made++;
    seen.open++;
    socket.on("close", () => {
      seen.open--;
      seen.bytes += socket.bytesWritten;
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const connection = createConnection({ send: createHttp(), baseUrl: `http://127.0.0.1:${port}/v1`, key: KEY });
  return { connection, seen };
}

/** Writes it again and again for as long as somebody listens. */
async function drip(response: ServerResponse, text: string, everyMs: number): Promise<void> {
  while (!response.destroyed && !response.writableEnded) {
    response.write(text);
    await sleep(everyMs);
  }
}

/** As fast as it is read. */
function flood(response: ServerResponse, text: string): void {
  const more = (): void => {
    let room = true;
    while (room && !response.destroyed) room = response.write(text);
  };
  response.on("drain", more);
  more();
}

async function failureOf(work: Promise<unknown>): Promise<RemoteFailure> {
  return work.then(
    () => Promise.reject(new Error("it should have failed")),
    (error: unknown) => error as RemoteFailure,
  );
}

async function eventsOf({ connection }: Serving): Promise<unknown[]> {
  const events: unknown[] = [];
  for await (const event of connection.events("/completions", {}, new AbortController().signal)) events.push(event);
  return events;
}

test("dripping extends neither a question nor a whole answer", async () => {
  const serving = await serve((response) => drip(response, " ", 40));
  const { connection, seen } = serving;
  const started = performance.now();
  const failures = await Promise.all([
    failureOf(connection.get("/models")),
    failureOf(connection.post("/completions", {})),
    failureOf(connection.post("/completions", {}, { timeoutMs: 200 })),
  ]);
  for (const { kind, message } of failures) {
    expect(kind).toBe("unreachable");
    expect(message).toMatch(/^took longer than \d s$/);
  }
  expect(performance.now() - started).toBeLessThan(2_000);
  await eventually(() => seen.open === 0);
});

test("comments keep a request alive that waits for its turn, but not for ever", async () => {
  const waiting = await serve(async (response) => {
    response.writeHead(200, SSE);
    const end = performance.now() + 900;
    while (performance.now() < end) {
      response.write(": queued\n\n");
      await sleep(40);
    }
    response.end('data: {"a":1}\n\ndata: [DONE]\n\n');
  });
  expect(await eventsOf(waiting)).toEqual([{ a: 1 }]);
  const endless = await serve((response) => drip(response.writeHead(200, SSE), ": queued\n\n", 40));
  const { kind, message } = await failureOf(eventsOf(endless));
  expect(kind).toBe("unreachable");
  expect(message).toBe("took longer than 2 s");
  await eventually(() => endless.seen.open === 0);
});

test.each([": still here\n\n", "x", "\n", "event: nothing\n\n"])(
  "a stream that has begun goes on with events, not with %j",
  async (text) => {
    const serving = await serve((response) => {
      response.writeHead(200, SSE).write('data: {"a":1}\n\n');
      return drip(response, text, 40);
    });
    const { kind, message } = await failureOf(eventsOf(serving));
    expect(kind).toBe("unreachable");
    expect(message).toMatch(/^sent nothing for/);
    await eventually(() => serving.seen.open === 0);
  },
);

test("a stream may take longer than any of its pauses", async () => {
  const serving = await serve(async (response) => {
    response.writeHead(200, SSE);
    for (let i = 0; i < 20; i++) {
      response.write(`data: ${i}\n\n`);
      await sleep(100);
    }
    response.end("data: [DONE]\n\n");
  });
  expect(await eventsOf(serving)).toHaveLength(20);
});

test("after [DONE] nothing is waited for but the end, which frees the connection", async () => {
  const serving = await serve(async (response) => {
    response.writeHead(200, SSE).write('data: {"a":1}\n\ndata: [DONE]\n\n');
    await sleep(50);
    response.end();
  });
  for (let i = 0; i < 3; i++) expect(await eventsOf(serving)).toEqual([{ a: 1 }]);
  expect(serving.seen.made).toBe(1);
  const endless = await serve((response) => {
    response.writeHead(200, SSE).write('data: {"a":1}\n\ndata: [DONE]\n\n');
    return drip(response, 'data: {"a":2}\n\n', 20);
  });
  const started = performance.now();
  expect(await eventsOf(endless)).toEqual([{ a: 1 }]);
  expect(performance.now() - started).toBeLessThan(1_000);
  await eventually(() => endless.seen.open === 0);
});

test("of a refusal's body the beginning is read, and not waited for", async () => {
  const large = await serve((response) => {
    response.writeHead(400, { "content-type": "text/plain" });
    return flood(response, "no! ".repeat(4096));
  });
  const failure = await failureOf(large.connection.post("/completions", {}));
  expect(failure).toMatchObject({ kind: "refused", status: 400 });
  expect(failure.message).toMatch(/^answered 400: "no! no! .*…"$/);
  expect(failure.message.length).toBeLessThan(600);
  await eventually(() => large.seen.open === 0);
  // What lies in the sockets' buffers is written too.
  expect(large.seen.bytes).toBeLessThan(16 * MEBIBYTE);
  const slow = await serve((response) => drip(response.writeHead(503), "later ", 40));
  const started = performance.now();
  expect(await failureOf(slow.connection.post("/completions", {}))).toMatchObject({
    kind: "busy",
    message: expect.stringMatching(/^answered 503: "later /),
  });
  expect(await failureOf(eventsOf(slow))).toMatchObject({ kind: "busy" });
  expect(performance.now() - started).toBeLessThan(900);
});

test("the key is never quoted, nor half of it, wherever a long text is cut", async () => {
  let text = "";
  const { connection } = await serve((response) => response.end(text));
  const { connection: refused } = await serve((response) => response.writeHead(422).end(text));
  for (const blank of ["x", " "]) {
    for (const end of [500, 2_000, 2_500]) {
      for (let back = 0; back <= KEY.length; back++) {
        text = `${blank.repeat(end - back)}${KEY} and more ${"y".repeat(3_000)}`;
        const { message } = await failureOf(connection.get("/models"));
        expect(message).not.toContain(KEY.slice(0, 4));
        expect(message.length).toBeLessThan(600);
      }
    }
  }
  // What is no text is written as JSON, and cut as well.
  for (let length = 1_950; length < 2_000; length++) {
    text = JSON.stringify({ detail: [`${" ".repeat(length)}${KEY}`, "x".repeat(3_000)] });
    const refusing = (await failureOf(refused.post("/completions", {}))).message;
    expect(refusing).toMatch(/^answered 422/);
    expect(refusing).not.toContain(KEY.slice(0, 4));
  }
  text = `a ${KEY} b ${KEY}`;
  expect((await failureOf(connection.get("/models"))).message).toBe('answered "a … b …", which is not JSON');
});

test("a long answer that is no JSON is cut before it is cleaned", async () => {
  const { connection } = await serve((response) => response.end(`<${" \u200b".repeat(4 * MEBIBYTE)}>`));
  const { message } = await failureOf(connection.get("/models"));
  expect(message).toBe('answered "<…", which is not JSON');
});

test("a detail as deep as JSON allows is a short message", async () => {
  const deep = `{"detail":${"[".repeat(20_000)}${"]".repeat(20_000)}}`;
  const refusing = await serve((response) => response.writeHead(422).end(deep));
  const failure = await failureOf(refusing.connection.post("/completions", {}));
  expect(failure).toMatchObject({ kind: "refused", status: 422 });
  expect(failure.message).toMatch(/^answered 422: "\[\[\[\[+…"$/);
  const streaming = await serve((response) => response.writeHead(200, SSE).end(`data: ${deep}\n\n`));
  const broken = await failureOf(eventsOf(streaming));
  expect(broken).toMatchObject({ kind: "failed", message: expect.stringMatching(/^broke off with: "\[+…"$/) });
});
