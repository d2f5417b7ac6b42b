/** `Idempotency-Key` over HTTP, on both databases and over a restart. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describePostgres } from "../db/databases.ts";
import { type Running, startPreceptor } from "./running.ts";
import { miniatureDirectory, RLT_JOB, registerBoth } from "./training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
beforeAll(async () => {
  models = await miniatureDirectory();
});
afterAll(() => models?.remove());

const EXPLANATION = { teacher: "teacher", question: "1 + 2", solution: "3", n: 2, max_tokens: 8 };

describe("PGlite", () => suite(() => ""));
describePostgres("a shared database", suite);

function suite(databaseUrl: () => string): void {
  let dataDir: string;
  let server: Running;
  const open = async (): Promise<Running> => {
    const url = databaseUrl();
    const env = {
      PRECEPTOR_MODELS_DIRS: models.directory,
      PRECEPTOR_THREADS: "1",
      ...(url ? { DATABASE_URL: url } : {}),
    };
    return startPreceptor(env, dataDir, { role: "api" });
  };
  beforeAll(async () => {
    dataDir = await mkdtemp(path.join(tmpdir(), "preceptor-idempotency-"));
    server = await open();
    await registerBoth(server);
  });
  afterAll(async () => {
    await server?.close();
    await rm(dataDir, { recursive: true, force: true });
  });

  interface Answer {
    status: number;
    replayed: boolean;
    body: Record<string, never> & { id: string; error?: { code: string; param: string } };
    headers: Headers;
  }
  async function send(route: string, key: string, body: object | FormData): Promise<Answer> {
    const form = body instanceof FormData;
    const response = await fetch(server.url + route, {
      method: "POST",
      headers: { "idempotency-key": key, ...(form ? {} : { "content-type": "application/json" }) },
      body: form ? body : JSON.stringify(body),
    });
    const { status, headers } = response;
    return { status, headers, replayed: headers.has("idempotent-replayed"), body: (await response.json()) as never };
  }
  const count = async (route: string): Promise<number> =>
    (await server.get<{ data: unknown[] }>(`${route}?limit=100`)).data.length;
  const dataset = { rows: [{ question: "1 + 2", solution: "3" }] };
  const file = (text: string): FormData => {
    const form = new FormData();
    form.set("file", new Blob([text], { type: "application/jsonl" }), "rows.jsonl");
    return form;
  };

  test("whatever creates gives the same answer again, over a restart too", async () => {
    const { body: made } = await send("/v1/datasets", "data", dataset);
    const job = { ...RLT_JOB, dataset: made.id };
    const requests: [route: string, body: () => object | FormData][] = [
      ["/v1/explanations", () => EXPLANATION],
      ["/v1/datasets", () => file('{"question":"2 + 2","solution":"4"}\n')],
      ["/v1/training/jobs", () => job],
      ["/v1/training/sessions", () => ({ model: "teacher", lora: { rank: 2 } })],
      ["/v1/teachers", () => ({ id: "other", model: "miniature" })],
    ];
    const first: Answer[] = [];
    for (const [route, body] of requests) {
      const before = await count(route);
      const one = await send(route, `key of ${route}`.replaceAll(" ", "_"), body());
      expect(one, route).toMatchObject({ replayed: false });
      expect([200, 201]).toContain(one.status);
      expect(await count(route)).toBe(before + 1);
      first.push(one);
    }
    for (const restart of [false, true]) {
      if (restart) {
        await server.close();
        server = await open();
      }
      for (const [i, [route, body]] of requests.entries()) {
        const before = await count(route);
        const again = await send(route, `key of ${route}`.replaceAll(" ", "_"), body());
        expect(again).toMatchObject({ status: first[i]!.status, replayed: true, body: first[i]!.body });
        expect(again.headers.get("x-request-id")).not.toBe(first[i]!.headers.get("x-request-id"));
        expect(await count(route)).toBe(before);
      }
    }
  }, 60_000);

  test("the order of keys is no other body; another value, another file or another route is", async () => {
    await send("/v1/datasets", "one", { name: "a", ...dataset });
    expect(await send("/v1/datasets", "one", { ...dataset, name: "a" })).toMatchObject({ status: 201, replayed: true });
    for (const [route, body] of [
      ["/v1/datasets", { ...dataset, name: "b" }],
      ["/v1/datasets", file('{"question":"1 + 2","solution":"3"}\n')],
      ["/v1/explanations", { ...dataset, name: "a" }],
    ] as const) {
      const refused = await send(route, "one", body);
      expect(refused).toMatchObject({ status: 409, body: { error: { code: "idempotency_key_reused" } } });
      expect(refused.headers.get("x-should-retry")).toBe("false");
    }
    await send("/v1/datasets", "form", file('{"question":"5","solution":"5"}\n'));
    const other = await send("/v1/datasets", "form", file('{"question":"6","solution":"6"}\n'));
    expect(other).toMatchObject({ status: 409, body: { error: { code: "idempotency_key_reused" } } });
  });

  test("of two at once one is done, the other is told to come back", async () => {
    const before = await count("/v1/explanations");
    const body = { ...EXPLANATION, n: 4, max_tokens: 60 };
    const both = await Promise.all([send("/v1/explanations", "twin", body), send("/v1/explanations", "twin", body)]);
    const [done, late] = both.sort((a, b) => a.status - b.status);
    expect(done).toMatchObject({ status: 200, replayed: false });
    expect(late).toMatchObject({ status: 409, body: { error: { code: "idempotency_in_progress" } } });
    expect(late!.headers.get("retry-after")).toBe("2");
    expect(late!.headers.get("x-should-retry")).toBe("true");
    expect((await send("/v1/explanations", "twin", body)).body).toEqual(done!.body);
    expect(await count("/v1/explanations")).toBe(before + 1);
  });

  test("failures are not kept: what was refused may be sent again, mended or not", async () => {
    const bad = { ...EXPLANATION, n: 0 };
    expect(await send("/v1/explanations", "bad", bad)).toMatchObject({ status: 400, replayed: false });
    expect(await send("/v1/explanations", "bad", bad)).toMatchObject({ status: 400, replayed: false });
    expect(await send("/v1/explanations", "bad", EXPLANATION)).toMatchObject({ status: 200, replayed: false });
    const lines = await send("/v1/datasets", "lines", file("nonsense"));
    expect(lines).toMatchObject({ status: 400, replayed: false, body: { error: { code: "invalid_dataset" } } });
    expect(await send("/v1/datasets", "lines", file('{"question":"7","solution":"7"}'))).toMatchObject({ status: 201 });
  });

  test("a key is judged, a stream is refused, and routes that create nothing ignore it", async () => {
    for (const key of ["ü".normalize("NFC"), "x".repeat(256)]) {
      const refused = await send("/v1/datasets", key, dataset);
      expect(refused).toMatchObject({ status: 400, body: { error: { param: "Idempotency-Key" } } });
    }
    const streamed = await send("/v1/explanations", "stream", { ...EXPLANATION, stream: true });
    expect(streamed).toMatchObject({ status: 400, body: { error: { code: "unsupported_parameter" } } });
    const score = { student: "student", items: [{ question: "1", solution: "1", explanation: "1" }] };
    for (const _ of [1, 2])
      expect(await send("/v1/scores", "score", score)).toMatchObject({ status: 200, replayed: false });
  });
}
