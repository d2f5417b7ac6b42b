import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeEach, expect, test } from "vitest";
import { datasetRoutes } from "../../src/api/datasets/routes.ts";
import { createDatasetService, type DatasetService } from "../../src/api/datasets/service.ts";
import { createFileArtifacts, sweepStaging } from "../../src/artifacts/files.ts";
import { createDatasetStore } from "../../src/db/dataset-store.ts";
import { createApp } from "../../src/http/app.ts";
import { createLifecycle } from "../../src/http/lifecycle.ts";
import { startServer } from "../../src/http/server.ts";
import { createJobQueue } from "../../src/jobs/queue.ts";
import { describeDatabases } from "../db/databases.ts";

const directory = mkdtempSync(join(tmpdir(), "preceptor-datasets-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const MAX_FILE_BYTES = 8 * 2 ** 20;

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

describeDatabases("datasets", ({ database }) => {
  let app: ReturnType<typeof createApp>;
  let service: DatasetService;
  beforeEach(() => use());

  function use(options: { openFile?: typeof open; scopes?: string[] } = {}): void {
    const { scopes, ...files } = options;
    service = createDatasetService({
      store: createDatasetStore(database().db),
      artifacts: createFileArtifacts({ directory, ...files }),
      maxFileBytes: MAX_FILE_BYTES,
      resolveHub: async () => {
        throw new Error("no hub here");
      },
      usedBy: async (id) => (await createJobQueue(database().db).needing(id))[0],
    });
    app = createApp({
      routes: [datasetRoutes({ datasets: service })],
      authenticate: scopes ? () => ({ id: "key", scopes: new Set(scopes) as never }) : null,
      strictJson: true,
    });
  }

  async function call(
    method: string,
    path: string,
    body?: unknown,
    headers = {},
  ): Promise<{ status: number; body: Json }> {
    const response = await app.request(`http://127.0.0.1${path}`, {
      method,
      headers: { "content-type": "application/json", host: "127.0.0.1", ...headers },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    return { status: response.status, body: await response.json() };
  }

  async function upload(
    text: string | Buffer,
    filename = "rows.jsonl",
    fields: Record<string, string> = {},
  ): Promise<{ status: number; body: Json }> {
    const form = new FormData();
    form.append("file", new Blob([typeof text === "string" ? text : new Uint8Array(text)]), filename);
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    const response = await app.request("http://127.0.0.1/v1/datasets", {
      method: "POST",
      body: form,
      headers: { host: "127.0.0.1" },
    });
    return { status: response.status, body: await response.json() };
  }
  const rowsOf = async (id: string): Promise<Json[]> =>
    (await call("GET", `/v1/datasets/${id}/rows?limit=100`)).body.data.map(
      ({ object: _, row: __, ...row }: Json) => row,
    );
  const folderOf = (body: Json): string => join(directory, "datasets", body.content_hash.slice("sha256:".length));
  const leftovers = (): string[] => (existsSync(join(directory, "tmp")) ? readdirSync(join(directory, "tmp")) : []);

  test("a file of JSON lines: head, rows, pages, and the bytes that its hash names", async () => {
    const lines = Array.from({ length: 250 }, (_, i) =>
      JSON.stringify({
        id: `r${i}`,
        problem: `What is ${i % 200}+1?`,
        answer: (i % 200) + 1,
        level: "é",
        metadata: { n: i },
      }),
    );
    const { status, body } = await upload(`\ufeff${lines.join("\r\n")}\n\n`, "sums.jsonl", {
      metadata: '{"course":"sums"}',
    });
    expect(status).toBe(201);
    expect(body).toMatchObject({
      object: "dataset",
      name: "sums.jsonl",
      rows: 250,
      duplicates: 50,
      columns: ["id", "question", "solution", "metadata"],
      source: { type: "file", format: "jsonl", filename: "sums.jsonl" },
      metadata: { course: "sums" },
    });
    expect(body.id).toMatch(/^ds_/);
    expect((await call("GET", `/v1/datasets/${body.id}`)).body).toEqual(body);
    const page = (await call("GET", `/v1/datasets/${body.id}/rows?after=99&limit=2`)).body;
    expect(page).toEqual({
      object: "list",
      data: [100, 101].map((i) => ({
        object: "dataset.row",
        row: i,
        id: `r${i}`,
        question: `What is ${i}+1?`,
        solution: String(i + 1),
        metadata: { n: i, level: "é" },
      })),
      first_id: "100",
      last_id: "101",
      has_more: true,
    });
    expect((await call("GET", `/v1/datasets/${body.id}/rows?after=249`)).body).toMatchObject({
      data: [],
      has_more: false,
    });
    const exported = Buffer.from(
      await (
        await app.request(`http://127.0.0.1/v1/datasets/${body.id}/export`, { headers: { host: "127.0.0.1" } })
      ).arrayBuffer(),
    );
    expect(exported.length).toBe(body.bytes);
    expect(`sha256:${createHash("sha256").update(exported).digest("hex")}`).toBe(body.content_hash);
    const again = await upload(exported, "again.ndjson");
    expect(again.body.content_hash).toBe(body.content_hash);
    expect(again.body.id).not.toBe(body.id);
    expect(leftovers()).toEqual([]);
  });

  test("rows in the body, CSV and JSON lines with the same rows have the same content", async () => {
    const rows = [
      { question: 'Say "hi", twice\nplease', solution: "hi, hi", metadata: { source: "x" } },
      { question: "2+3?", solution: "5", reasoning_trace: "two, three: five" },
    ];
    const csv =
      'prompt,solution,reasoning,metadata\r\n"Say ""hi"", twice\nplease","hi, hi",,"{""source"":""x""}"\r\n2+3?,5,"two, three: five",\r\n';
    const made = [
      await call("POST", "/v1/datasets", { rows, name: "three ways" }),
      await upload(rows.map((row) => JSON.stringify(row)).join("\n")),
      await upload(csv, "rows.csv"),
      await upload(csv, "blob", { format: "csv" }),
    ];
    expect(made.map(({ status }) => status)).toEqual([201, 201, 201, 201]);
    expect(new Set(made.map(({ body }) => body.content_hash)).size).toBe(1);
    expect(await rowsOf(made[2]!.body.id)).toEqual(rows);
  });

  test("conversations are taken apart, and every export is read back as the same rows", async () => {
    const trace = "First two.\n\nThen three.";
    const answer = `<|begin_of_thought|>\n\n${trace}\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n5\n\n<|end_of_solution|>`;
    const { body } = await call("POST", "/v1/datasets", {
      rows: [
        {
          system: "Think.",
          conversations: [
            { from: "user", value: "2+3?" },
            { from: "assistant", value: answer },
          ],
        },
        {
          messages: [
            { role: "system", content: "s" },
            { role: "user", content: "1+1?" },
            { role: "assistant", content: "<think>\none\n</think>\n\n2" },
          ],
        },
        { id: "plain", question: "3+3?", solution: "6", metadata: { a: [1] } },
      ],
    });
    const expected = [
      { question: "2+3?", solution: "5", reasoning_trace: trace },
      { question: "1+1?", solution: "2", reasoning_trace: "one" },
      { id: "plain", question: "3+3?", solution: "6", metadata: { a: [1] } },
    ];
    expect(await rowsOf(body.id)).toEqual(expected);
    for (const format of ["jsonl", "prompt-completion", "chat-jsonl", "sharegpt"]) {
      const response = await app.request(`http://127.0.0.1/v1/datasets/${body.id}/export?format=${format}`, {
        headers: { host: "127.0.0.1" },
      });
      expect(response.headers.get("content-disposition")).toContain(`${format}.jsonl`);
      const text = await response.text();
      if (format === "chat-jsonl") {
        const [first] = text.split("\n").map((line) => line && JSON.parse(line));
        expect(first.messages.map((m: Json) => m.role)).toEqual(["system", "user", "assistant"]);
        expect(first.messages[2].content).toBe(
          `<|begin_of_thought|>\n\n${trace}<|end_of_thought|>\n\n<|begin_of_solution|>\n\n5\n\n<|end_of_solution|>`,
        );
      }
      const again = await upload(text);
      expect(again.body.content_hash, format).toBe(body.content_hash);
    }
  });

  test("every bad line is counted, twenty are told with their reasons, and nothing is kept", async () => {
    const before = (await call("GET", "/v1/datasets?limit=100")).body.data.length;
    const lines = [
      '{"question":"a","solution":"b","id":"x"}',
      '{"question":"a"}',
      "",
      '{"question":" ","solution":"b"}',
      '{"question":"a","soluton":"b"}',
      "[1]",
      '{"question":"a"',
      '{"question":"a","solution":"b","id":"x"}',
      '{"question":"a","solution":0.1}',
      '{"question":"a","solution":"b","metadata":5}',
      '{"conversations":[{"from":"human","value":"q"}]}',
      ...Array.from({ length: 30 }, () => "no"),
    ];
    const { status, body } = await upload(lines.join("\n"));
    expect(status).toBe(400);
    expect(body.error).toMatchObject({ code: "invalid_dataset", param: "file", type: "invalid_request_error" });
    expect(body.error.lines).toHaveLength(20);
    expect(body.error.lines.slice(0, 9).map((l: Json) => l.line)).toEqual([2, 4, 5, 6, 7, 8, 9, 10, 11]);
    const reasons = body.error.lines.map((l: Json) => l.reason);
    expect(reasons[0]).toContain("solution is missing");
    expect(reasons[1]).toContain("question is empty");
    expect(reasons[2]).toContain('did you mean the column "soluton"');
    expect(reasons[5]).toContain('id "x" stands in an earlier row');
    expect(body.error.message).toContain("39 of 40 rows cannot be used");
    expect(body.error.message).toContain("line 7: is not valid JSON");
    expect(body.error.message).toContain("and 19 more");
    expect((await call("GET", "/v1/datasets?limit=100")).body.data).toHaveLength(before);
    expect(leftovers()).toEqual([]);
    const inBody = await call("POST", "/v1/datasets", { rows: [{ question: "a", solution: "b" }, 5] });
    expect(inBody.body.error).toMatchObject({ code: "invalid_dataset", param: "rows", lines: [{ line: 2 }] });
  });

  test("what is no dataset is refused by name", async () => {
    const refusals: [Promise<{ status: number; body: Json }>, number, string, RegExp][] = [
      [upload(Buffer.from([0x7b, 0xff, 0xfe, 0x7d])), 400, "invalid_dataset", /line 1: is not valid UTF-8/],
      [upload("PAR1xxxx", "x.parquet"), 400, "invalid_dataset", /Parquet file cannot be read.*was it cut/],
      [upload("question,solution", "x.parquet"), 400, "invalid_dataset", /is named Parquet and is none/],
      [upload(Buffer.from([0x1f, 0x8b, 8, 0]), "x.jsonl.gz"), 400, "invalid_dataset", /gzip file is broken/],
      [upload(Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), "x.jsonl.zst"), 400, "invalid_dataset", /zstd/],
      [upload("", "x.jsonl"), 400, "invalid_dataset", /no rows/],
      [upload("a,b", "x.xyz"), 400, "invalid_value", /format=jsonl/],
      [
        upload('question,solution\n"a,b\nc,d\n', "x.csv"),
        400,
        "invalid_dataset",
        /line 2: opens a quote that is never closed/,
      ],
      [upload("question,solution\na,b,c\nd\n", "x.csv"), 400, "invalid_dataset", /line 2: has 3 fields.*\n.*line 3/],
      [upload("question;solution\na;b\n", "x.csv"), 400, "invalid_dataset", /commas/],
      [upload("{}", "x.jsonl", { nme: "x" }), 400, "unknown_parameter", /name/],
      [upload("{}", "x.jsonl", { metadata: "{" }), 400, "invalid_value", /JSON/],
      [upload(Buffer.alloc(MAX_FILE_BYTES + 1, 0x61)), 413, "payload_too_large", /PRECEPTOR_MAX_DATASET_MB/],
      [call("POST", "/v1/datasets", "{"), 400, "invalid_json", /JSON/],
      [call("POST", "/v1/datasets", { rows: [] }), 400, "invalid_value", /rows/],
      [call("POST", "/v1/datasets", { row: [] }), 400, "unknown_parameter", /rows/],
      [call("POST", "/v1/datasets", "x", { "content-type": "text/plain" }), 415, "unsupported_media_type", /multipart/],
      [
        call("POST", "/v1/datasets", "x", { "content-type": "multipart/form-data" }),
        400,
        "invalid_request",
        /boundary/,
      ],
      [
        call("POST", "/v1/datasets", "--b\r\n", { "content-type": "multipart/form-data; boundary=b" }),
        400,
        "invalid_request",
        /ends before/,
      ],
      [call("GET", "/v1/datasets/ds_none"), 404, "not_found", /ds_none/],
      [call("DELETE", "/v1/datasets/ds_none"), 404, "not_found", /ds_none/],
    ];
    for (const [answer, status, code, message] of refusals) {
      const { status: got, body } = await answer;
      expect([got, body.error.code, body.error.message]).toEqual([status, code, expect.stringMatching(message)]);
    }
    expect(leftovers()).toEqual([]);
  });

  test("a full disk is said by name, and leaves nothing", async () => {
    use({
      openFile: async (...args) => {
        const handle = await open(...args);
        handle.write = (() =>
          Promise.reject(Object.assign(new Error("ENOSPC: no space"), { code: "ENOSPC" }))) as never;
        return handle;
      },
    });
    const { status, body } = await upload('{"question":"a","solution":"b"}');
    expect([status, body.error.code, body.error.type]).toEqual([507, "insufficient_storage", "unavailable_error"]);
    expect(body.error.message).not.toContain(directory);
    expect((await call("POST", "/v1/datasets", { rows: [{ question: "a", solution: "b" }] })).status).toBe(507);
    expect(leftovers()).toEqual([]);
  });

  test("a client that leaves in the middle leaves no file, and the server goes on", async () => {
    const lifecycle = createLifecycle();
    const server = await startServer(app, { host: "127.0.0.1", port: 0, lifecycle });
    try {
      const socket = connect(server.port, "127.0.0.1");
      socket.on("error", () => undefined);
      await once(socket, "connect");
      socket.write(
        "POST /v1/datasets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 4000000\r\n\r\n" +
          `--b\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n${'{"question":"a","solution":"b"}\n'.repeat(1000)}`,
      );
      for (let i = 0; i < 100 && leftovers().length === 0; i++) await sleep(20);
      expect(leftovers()).toHaveLength(1);
      socket.destroy();
      for (let i = 0; i < 100 && leftovers().length > 0; i++) await sleep(20);
      expect(leftovers()).toEqual([]);
      const form = new FormData();
      form.append("file", new Blob(['{"question":"a","solution":"b"}']), "x.jsonl");
      expect((await fetch(`${server.url}/v1/datasets`, { method: "POST", body: form })).status).toBe(201);
      const big = new FormData();
      big.append("file", new Blob([Buffer.alloc(MAX_FILE_BYTES * 3, 0x61)]), "x.jsonl");
      const refused = await fetch(`${server.url}/v1/datasets`, { method: "POST", body: big }).then(
        (r) => r.status,
        () => "cut",
      );
      expect([413, "cut"]).toContain(refused);
      expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    } finally {
      await server.close(0);
    }
  });

  test("files that changed or are gone are refused, not used", async () => {
    const rows = Array.from({ length: 40 }, (_, i) => ({ question: `q${i} of the changed`, solution: "s" }));
    const { body } = await call("POST", "/v1/datasets", { rows });
    const file = join(folderOf(body), "rows.jsonl");
    const whole = await readFile(file);
    const dataset = await service.openDataset(body.id);
    await dataset.verify();
    const other = Buffer.from(whole);
    other.write("Q", whole.indexOf("q7 of"));
    writeFileSync(file, other);
    expect(await dataset.row(6)).toEqual(rows[6]);
    await expect(dataset.row(7)).rejects.toMatchObject({
      code: "invalid_dataset",
      message: expect.stringContaining("row 7"),
    });
    await expect(dataset.verify()).rejects.toMatchObject({ code: "invalid_dataset" });
    truncateSync(file, 100);
    expect((await call("GET", `/v1/datasets/${body.id}/rows`)).body.error).toMatchObject({
      code: "invalid_dataset",
      message: expect.stringContaining("size"),
    });
    // The same rows sent again make it whole.
    const again = await call("POST", "/v1/datasets", { rows });
    expect(await rowsOf(body.id)).toEqual(rows);
    const index = join(folderOf(body), "rows.index");
    const bytes = await readFile(index);
    bytes[20] = bytes[20]! ^ 1;
    writeFileSync(index, bytes);
    expect((await call("GET", `/v1/datasets/${body.id}/rows`)).body.error).toMatchObject({
      code: "invalid_dataset",
      message: expect.stringContaining("index"),
    });
    rmSync(index);
    expect((await call("GET", `/v1/datasets/${body.id}/export`)).body.error).toMatchObject({
      code: "invalid_dataset",
      message: expect.stringContaining("missing"),
    });
    expect((await call("DELETE", `/v1/datasets/${body.id}`)).status).toBe(200);
    expect((await call("DELETE", `/v1/datasets/${again.body.id}`)).status).toBe(200);
  });

  test("rows that a job made of one question may bear one id, as long as it says which is which", async () => {
    const row = { id: "q", question: "one id", solution: "s" };
    const made = [{ row: 0, sample: 0 }, { row: 0, sample: 1 }, { row: 1 }, { row: 2 }];
    const rows = made.map((provenance) => ({ ...row, provenance: { job: "djob_1", ...provenance } }));
    expect((await call("POST", "/v1/datasets", { rows })).status).toBe(201);
    expect((await call("POST", "/v1/datasets", { rows: [...rows, rows[3]] })).body.error.message).toMatch(
      /earlier row/,
    );
  });

  test("the files go with the last dataset that has them; one that a job needs stays", async () => {
    const rows = [{ question: "shared by two", solution: "s" }];
    const [a, b] = [await call("POST", "/v1/datasets", { rows }), await call("POST", "/v1/datasets", { rows })];
    expect((await call("DELETE", `/v1/datasets/${a!.body.id}`)).body).toEqual({
      id: a!.body.id,
      object: "dataset",
      deleted: true,
    });
    expect((await call("GET", `/v1/datasets/${a!.body.id}`)).status).toBe(404);
    expect(await rowsOf(b!.body.id)).toEqual(rows);
    const queue = createJobQueue(database().db);
    const config = { method: "sft", eval: { dataset: b!.body.id } };
    await queue.insert({ id: `tjob_${b!.body.id}`, kind: "sft", config, configHash: "h", seed: 1 });
    const refused = await call("DELETE", `/v1/datasets/${b!.body.id}`);
    expect([refused.status, refused.body.error.code]).toEqual([409, "conflict"]);
    expect(refused.body.error.message).toContain("tjob_");
    // The beginning of an id is no id, whatever stands in a job.
    expect((await call("DELETE", "/v1/datasets/ds_")).status).toBe(404);
    await queue.cancel(`tjob_${b!.body.id}`);
    // One that a job has made, and is going to train on.
    await queue.insert({ id: `djob_${b!.body.id}`, kind: "distillation", config: {}, configHash: "h", seed: 1 });
    const job = await queue.claim({ owner: "o", kinds: ["distillation"], leaseMs: 60_000 });
    const lease = { jobId: job!.id, token: job!.leaseToken };
    await queue.writeProgress(lease, { step: 1, made: { rows: { result: { output_dataset: b!.body.id } } } });
    expect((await call("DELETE", `/v1/datasets/${b!.body.id}`)).status).toBe(409);
    await queue.finish(lease, { outcome: "succeeded" });
    expect(existsSync(folderOf(b!.body))).toBe(true);
    expect((await call("DELETE", `/v1/datasets/${b!.body.id}`)).status).toBe(200);
    expect(existsSync(folderOf(b!.body))).toBe(false);
  });

  test("uploads and deletions of one content at once never leave a head without files", async () => {
    const rows = [{ question: "raced for", solution: "s" }];
    const living: string[] = [];
    await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const { body } = await call("POST", "/v1/datasets", { rows });
        if (i % 3 === 0) living.push(body.id);
        else expect((await call("DELETE", `/v1/datasets/${body.id}`)).status).toBe(200);
      }),
    );
    for (const id of living) expect(await rowsOf(id)).toEqual(rows);
  });

  test("lists go by creation, and only a key for training gets in", async () => {
    const ids: string[] = [];
    for (const name of ["one", "two", "three"]) {
      ids.push((await call("POST", "/v1/datasets", { name, rows: [{ question: name, solution: "s" }] })).body.id);
      await sleep(2);
    }
    const page = (await call("GET", `/v1/datasets?order=desc&limit=2`)).body;
    expect(page.data.map((d: Json) => d.id)).toEqual([ids[2], ids[1]]);
    expect(page.has_more).toBe(true);
    expect((await call("GET", `/v1/datasets?limit=1&after=${ids[1]}`)).body.data[0].id).toBe(ids[0]);
    use({ scopes: ["explain", "score"] });
    for (const [method, path] of [
      ["GET", "/v1/datasets"],
      ["GET", `/v1/datasets/${ids[0]}/rows`],
      ["DELETE", `/v1/datasets/${ids[0]}`],
    ] as const) {
      expect((await call(method, path, undefined, { authorization: "Bearer k" })).body.error.code).toBe(
        "insufficient_scope",
      );
    }
    use({ scopes: ["train"] });
    expect((await call("GET", `/v1/datasets/${ids[0]}`, undefined, { authorization: "Bearer k" })).status).toBe(200);
  });

  test("a split keeps a question on one side, for ever the same", async () => {
    const rows = Array.from({ length: 400 }, (_, i) => ({ question: `question ${i % 300}`, solution: String(i) }));
    const { body } = await call("POST", "/v1/datasets", { rows });
    const dataset = await service.openDataset(body.id);
    const { train, heldOut } = await dataset.split(0.2, 7);
    expect([...train, ...heldOut].sort((a, b) => a - b)).toEqual(rows.map((_, i) => i));
    const side = new Set(heldOut.map((i) => i % 300));
    expect(train.some((i) => side.has(i % 300))).toBe(false);
    expect(side.size).toBeGreaterThan(30);
    expect(side.size).toBeLessThan(90);
    expect(await dataset.split(0.2, 7)).toEqual({ train, heldOut });
    expect((await dataset.split(0.2, 8)).heldOut).not.toEqual(heldOut);
    // Stored: what past runs held out must not change.
    expect(heldOut.slice(0, 8)).toMatchInlineSnapshot(`
      [
        4,
        6,
        8,
        21,
        25,
        29,
        37,
        43,
      ]
    `);
    expect(await dataset.split(0, 7)).toEqual({ train: rows.map((_, i) => i), heldOut: [] });
    expect((await dataset.split(1, 7)).train).toEqual([]);
    await expect(dataset.split(2, 7)).rejects.toMatchObject({ code: "invalid_value" });
    await expect(dataset.row(400)).rejects.toMatchObject({ code: "invalid_value" });
    const seen: string[] = [];
    for await (const row of dataset.rows(395)) seen.push(row.solution);
    expect(seen).toEqual(["395", "396", "397", "398", "399"]);
  });

  test("what a killed process left is swept after a day, not before", async () => {
    const folder = await createFileArtifacts({ directory }).stage();
    const writer = await folder.create("upload");
    await writer.close();
    await sweepStaging(directory, Date.now() + 3_600_000);
    expect(leftovers()).toHaveLength(1);
    await sweepStaging(directory, Date.now() + 25 * 3_600_000);
    expect(leftovers()).toEqual([]);
  });
});
