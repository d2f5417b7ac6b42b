/** Files other than plain text, exports, searching and deriving, over HTTP. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeEach, expect, test } from "vitest";
import { datasetRoutes } from "../../src/api/datasets/routes.ts";
import { createDatasetService } from "../../src/api/datasets/service.ts";
import { createFileArtifacts } from "../../src/artifacts/files.ts";
import { createDatasetStore } from "../../src/db/dataset-store.ts";
import { createApp } from "../../src/http/app.ts";
import { resolveHubData } from "../../src/model/hub/resolve-data.ts";
import { describeDatabases } from "../db/databases.ts";
import { type FakeHub, startFakeHub } from "../unit/hub/fake-hub.ts";

const directory = mkdtempSync(join(tmpdir(), "preceptor-dataset-files-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const MAX_FILE_BYTES = 8 * 2 ** 20;
const fixture = (name: string): Buffer => readFileSync(join(import.meta.dirname, "../unit/datasets/fixtures", name));

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
type Json = any;

describeDatabases("files of datasets", ({ database }) => {
  let app: ReturnType<typeof createApp>;
  let hub: FakeHub | undefined;
  let offline = false;
  beforeEach(() => {
    const service = createDatasetService({
      store: createDatasetStore(database().db),
      artifacts: createFileArtifacts({ directory }),
      maxFileBytes: MAX_FILE_BYTES,
      usedBy: async () => undefined,
      resolveHub: (source, signal) =>
        resolveHubData(source, {
          cacheDir: join(directory, "hub"),
          endpoint: hub?.endpoint ?? "http://127.0.0.1:1",
          offline,
          fetch,
          signal,
          sleep: async () => undefined,
        }),
    });
    app = createApp({ routes: [datasetRoutes({ datasets: service })], authenticate: null, strictJson: true });
  });

  async function call(method: string, path: string, body?: unknown): Promise<{ status: number; body: Json }> {
    const response = await app.request(`http://127.0.0.1${path}`, {
      method,
      headers: { "content-type": "application/json", host: "127.0.0.1" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: await response.json() };
  }
  async function upload(file: Buffer, filename: string, fields = {}): Promise<{ status: number; body: Json }> {
    const form = new FormData();
    form.append("file", new Blob([new Uint8Array(file)]), filename);
    for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
    const init = { method: "POST", body: form, headers: { host: "127.0.0.1" } };
    const response = await app.request("http://127.0.0.1/v1/datasets", init);
    return { status: response.status, body: await response.json() };
  }
  async function download(id: string, format: string): Promise<{ type: string | null; name: string; bytes: Buffer }> {
    const response = await app.request(`http://127.0.0.1/v1/datasets/${id}/export?format=${format}`, {
      headers: { host: "127.0.0.1" },
    });
    const name = /filename="(.*)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "";
    return { type: response.headers.get("content-type"), name, bytes: Buffer.from(await response.arrayBuffer()) };
  }
  const rowsOf = async (id: string, query = "limit=100"): Promise<Json[]> =>
    (await call("GET", `/v1/datasets/${id}/rows?${query}`)).body.data;
  const make = async (rows: object[], more: object = {}): Promise<Json> => {
    const { status, body } = await call("POST", "/v1/datasets", { rows, ...more });
    expect([status, body]).toEqual([201, body]);
    return body;
  };
  const leftovers = (): string[] => readdirSync(join(directory, "tmp"));

  test("Parquet of other writers is read by the columns' names, nested conversations too", async () => {
    const { status, body } = await upload(fixture("table-zstd.parquet"), "table.parquet");
    expect(status).toBe(201);
    expect(body).toMatchObject({ rows: 40, source: { type: "file", format: "parquet", filename: "table.parquet" } });
    expect((await rowsOf(body.id))[3]).toEqual({
      object: "dataset.row",
      row: 3,
      question: "What is 3 + 3? 数",
      solution: "6",
      reasoning_trace: "twice 3\nmakes 6",
      metadata: { n: 3, level: 3, share: 1.5, tags: ["a", "a", "a"] },
    });
    for (const name of ["table-none", "table-snappy", "table-gzip", "table-brotli", "table-lz4", "pages-v2"]) {
      expect((await upload(fixture(`${name}.parquet`), "x.parquet")).body.content_hash, name).toBe(body.content_hash);
    }
    const talks = await upload(fixture("conversations.parquet"), "talks.parquet");
    expect((await rowsOf(talks.body.id))[19]).toMatchObject({
      id: "19",
      question: "q19",
      solution: "19",
      reasoning_trace: "t19",
      metadata: { source: "s", parts: [{ a: 19 }, { a: null }] },
    });
  });

  test("a Parquet file with wrong types or broken bytes is a 400 that says which rows", async () => {
    const types = await upload(fixture("wrong-types.parquet"), "x.parquet");
    expect([types.status, types.body.error.code]).toEqual([400, "invalid_dataset"]);
    expect(types.body.error.lines).toEqual([{ line: 1, reason: "solution is not a text" }]);
    const binary = await upload(fixture("binary.parquet"), "x.parquet");
    expect(binary.body.error.lines).toEqual([
      { line: 2, reason: "question is binary, not a text" },
      { line: 3, reason: expect.stringContaining("solution is missing") },
    ]);
    expect(binary.body.error.message).toContain("row 2: question is binary");
    const whole = fixture("table-snappy.parquet");
    const cut = await upload(whole.subarray(0, 3_000), "x.parquet");
    expect(cut.body.error.message).toMatch(/was it cut/);
    const hole = Buffer.from(whole);
    hole.fill(0xff, 100, 2_500);
    expect((await upload(hole, "x.parquet")).body.error).toMatchObject({
      code: "invalid_dataset",
      message: expect.stringMatching(/^the Parquet file cannot be read: rows 1 to 16/),
    });
    expect(leftovers()).toEqual([]);
  });

  test("gzip is unpacked as it is read, and refused where it inflates beyond measure", async () => {
    const lines = Array.from({ length: 300 }, (_, i) => `{"question":"q${i}","solution":"${i}"}\n`).join("");
    const plain = await upload(Buffer.from(lines), "rows.jsonl");
    const packed = await upload(gzipSync(lines), "rows.jsonl.gz");
    expect(packed.body.content_hash).toBe(plain.body.content_hash);
    expect(packed.body.source).toMatchObject({ format: "jsonl", compression: "gzip", filename: "rows.jsonl.gz" });
    const csv = await upload(gzipSync('question,solution\n"a\n""b""",c\n'), "x.csv.gz");
    expect((await rowsOf(csv.body.id))[0]).toMatchObject({ question: 'a\n"b"', solution: "c" });
    const bomb = gzipSync(Buffer.alloc(6 * 2 ** 20, "\n"));
    const refused = await upload(bomb, "x.jsonl.gz");
    expect([refused.status, refused.body.error.code]).toEqual([400, "invalid_dataset"]);
    expect(refused.body.error.message).toMatch(/inflates beyond 100 times/);
    const large = gzipSync(Buffer.from(`{"question":"q","solution":"${"ab c".repeat(100)}"}\n`.repeat(30_000)));
    const noise = Buffer.concat([large, gzipSync(Buffer.from(Array.from({ length: 2e5 }, (_, i) => (i * i) % 251)))]);
    const tooLarge = await upload(noise, "x.jsonl.gz");
    expect([tooLarge.status, tooLarge.body.error.message]).toEqual(
      tooLarge.status === 413 ? [413, expect.stringMatching(/PRECEPTOR_MAX_DATASET_MB/)] : [400, expect.anything()],
    );
    expect((await upload(gzipSync(lines).subarray(0, 200), "x.jsonl.gz")).body.error.message).toMatch(/gzip.*broken/);
    expect((await upload(gzipSync(""), "x.jsonl.gz")).body.error.message).toMatch(/no rows/);
    expect((await upload(gzipSync(fixture("table-none.parquet")), "x.parquet.gz")).body.error.message).toMatch(
      /as it is/,
    );
    expect(leftovers()).toEqual([]);
  });

  test("a Parquet export is read back as the same rows, and its metadata stays what it was", async () => {
    const rows = Array.from({ length: 30 }, (_, i) => ({
      ...(i % 2 ? { id: `r${i}` } : {}),
      question: `q${i} ∑`,
      solution: `s${i}`,
      ...(i % 3 ? { reasoning_trace: `because\n${i}` } : {}),
      ...(i % 5
        ? { metadata: { preceptor: { teacher: "t@3", seed: i, score: { reward: -0.5 } }, tag: i % 4 ? "x" : 7 } }
        : {}),
    }));
    const made = await make(rows);
    const { type, name, bytes } = await download(made.id, "parquet");
    expect([type, name]).toEqual(["application/vnd.apache.parquet", `${made.id}.parquet`]);
    const again = await upload(bytes, name);
    expect(again.body.content_hash).toBe(made.content_hash);
  });

  test("a folder for a hub is a tar with a card and the same Parquet file", async () => {
    const made = await make([{ question: "q", solution: "s" }], { name: 'my "set"' });
    const { type, bytes } = await download(made.id, "hub");
    expect(type).toBe("application/x-tar");
    const files = untar(bytes);
    expect([...files.keys()]).toEqual(["README.md", "data/train.parquet"]);
    expect(files.get("data/train.parquet")).toEqual((await download(made.id, "parquet")).bytes);
    const card = String(files.get("README.md"));
    expect(card).toMatch(/^---\n# license: /);
    expect(card).toContain('pretty_name: "my \\"set\\""');
    expect(card).toContain("  - split: train\n    path: data/train.parquet\n");
    expect(card).toContain(made.content_hash);
    expect(leftovers()).toEqual([]);
  });

  test("rows are found by their metadata, page by page", async () => {
    const made = await make(
      Array.from({ length: 50 }, (_, i) => ({
        question: `q${i}`,
        solution: "level 3",
        metadata: {
          level: i % 5,
          tags: i % 2 ? ["odd", "x"] : [],
          preceptor: { score: i / 10 },
          "a,b:c": "d\\e",
          "x.y": i,
        },
      })),
    );
    const search = async (conditions: string, more = "") =>
      (await call("GET", `/v1/datasets/${made.id}/rows?metadata=${encodeURIComponent(conditions)}${more}`)).body;
    const first = await search("level:3", "&limit=4");
    expect(first.data.map((row: Json) => row.row)).toEqual([3, 8, 13, 18]);
    expect(first).toMatchObject({ first_id: "3", last_id: "18", has_more: true });
    const rest = await search("level:3", "&limit=6&after=18");
    expect(rest.data.map((row: Json) => row.row)).toEqual([23, 28, 33, 38, 43, 48]);
    expect(rest.has_more).toBe(false);
    expect((await search("level:3,tags:odd")).data.map((row: Json) => row.row)).toEqual([3, 13, 23, 33, 43]);
    expect((await search("preceptor.score:1.2")).data.map((row: Json) => row.row)).toEqual([12]);
    expect((await search("x.y:12")).data.map((row: Json) => row.row)).toEqual([12]);
    expect((await search(String.raw`a\,b\:c:d\\e`, "&limit=1")).data).toHaveLength(1);
    expect(await search("level:9")).toMatchObject({ data: [], has_more: false });
    expect((await search("level")).error).toMatchObject({ code: "invalid_value", param: "metadata" });
  });

  const long = (i: number): string =>
    `A farmer number${i} takes ${i} baskets of apples to market${i} each morning and sells half${i} of them before noon at a price${i} that depends on weather${i}, season${i} and the mood${i} of buyers; how many are left?`;

  test("deriving: what is dropped is kept aside with its reason, what stays names its parent", async () => {
    const rows = [
      { question: long(1), solution: "1", metadata: { kind: "a" } },
      { question: long(2), solution: "2", metadata: { kind: "a" } },
      { question: long(1), solution: "other", metadata: { kind: "a" } },
      { question: `${long(2)} please`, solution: "2", metadata: { kind: "a" } },
      { question: "unwanted", solution: "0", metadata: { kind: "b" } },
      { question: "Seen?", solution: `Recall: ${long(7)}`, metadata: { kind: "a" } },
      { question: "short one", solution: "9", metadata: { kind: "a" } },
    ];
    const parent = await make(rows, { name: "mine" });
    const test_ = await make([
      { question: "short ONE!", solution: "?" },
      { question: long(7), solution: "?" },
    ]);
    const { status, body } = await call("POST", `/v1/datasets/${parent.id}/derive`, {
      filter: { metadata: { kind: "a" } },
      dedupe: { near: 0.8 },
      decontaminate: { against: [test_.id] },
    });
    expect(status).toBe(201);
    const reasons = {
      filter: 1,
      exact_duplicate: 1,
      near_duplicate: 1,
      ngram_overlap: 2,
    };
    expect(body).toMatchObject({ object: "dataset.derivation", parent: parent.id, held_out: null });
    expect(body.dropped).toMatchObject({ rows: 5, reasons });
    expect(body.dataset).toMatchObject({
      rows: 2,
      name: "mine (derived)",
      source: {
        type: "derived",
        parent: parent.id,
        part: "kept",
        settings: { dedupe: { exact: true, near: 0.8, compare: "question" }, decontaminate: { ngram: 13, near: 0.8 } },
        dropped: { dataset: body.dropped.dataset.id, rows: 5, reasons },
      },
    });
    expect((await rowsOf(body.dataset.id)).map((row) => row.question)).toEqual([long(1), long(2)]);
    const dropped = await rowsOf(body.dropped.dataset.id);
    expect(dropped.map((row) => row.metadata.preceptor_dropped)).toEqual([
      { row: 2, reason: "exact_duplicate", of_row: 0 },
      { row: 3, reason: "near_duplicate", of_row: 1, similarity: expect.any(Number) },
      { row: 4, reason: "filter" },
      {
        row: 5,
        reason: "ngram_overlap",
        of_row: 1,
        dataset: test_.id,
        words: expect.stringMatching(/^a farmer number7 takes 7/),
      },
      { row: 6, reason: "ngram_overlap", of_row: 0, dataset: test_.id, words: "short one" },
    ]);
    expect(
      (await rowsOf(body.dropped.dataset.id, "metadata=preceptor_dropped.reason:near_duplicate")).map((row) => row.row),
    ).toEqual([1]);
    expect((await call("GET", `/v1/datasets/${body.dataset.id}`)).body).toEqual(body.dataset);
    const nearOnly = await call("POST", `/v1/datasets/${parent.id}/derive`, {
      decontaminate: { against: [test_.id], ngram: null, near: 0.9 },
    });
    expect(nearOnly.body.dropped.reasons).toEqual({ near_contamination: 1 });
    expect(leftovers()).toEqual([]);
  });

  test("deriving: a split is the split that jobs make of the same rows", async () => {
    const parent = await make(
      Array.from({ length: 60 }, (_, i) => ({ question: `question ${i % 50}`, solution: `${i}` })),
    );
    const [one, two] = [0, 1].map(() =>
      call("POST", `/v1/datasets/${parent.id}/derive`, { split: { held_out: 0.3, seed: 5 } }),
    );
    const { body } = await one!;
    expect((await two!).body.dataset.content_hash).toBe(body.dataset.content_hash);
    expect(body.dataset.rows + body.held_out.rows).toBe(60);
    expect([body.dataset.source.part, body.held_out.source.part]).toEqual(["train", "held_out"]);
    const held = new Set((await rowsOf(body.held_out.id)).map((row) => row.question));
    expect((await rowsOf(body.dataset.id)).some((row) => held.has(row.question))).toBe(false);
    expect(held.size).toBeGreaterThan(4);
    expect(body.dropped).toEqual({ rows: 0, reasons: {}, dataset: null });
  });

  test("deriving and uploading refuse what makes no sense, and leave nothing", async () => {
    const parent = await make([{ question: "only", solution: "1" }]);
    const refusals: [object, number, string, RegExp][] = [
      [{}, 400, "invalid_value", /say what to do/],
      [{ filter: { metadata: { a: 1 } } }, 400, "invalid_dataset", /none of the 1 rows would be left \(filter 1\)/],
      [{ split: { held_out: 0.5 } }, 400, "invalid_dataset", /nothing to hold out/],
      [{ split: { held_out: 1 } }, 400, "invalid_value", /held_out/],
      [{ dedupe: { near: 0.1 } }, 400, "invalid_value", /near/],
      [{ dedup: {} }, 400, "unknown_parameter", /dedupe/],
      [{ decontaminate: { against: ["ds_none"] } }, 404, "not_found", /ds_none/],
      [{ decontaminate: { against: [] } }, 400, "invalid_value", /against/],
    ];
    for (const [request, status, code, message] of refusals) {
      const { status: got, body } = await call("POST", `/v1/datasets/${parent.id}/derive`, request);
      expect([got, body.error.code, body.error.message]).toEqual([status, code, expect.stringMatching(message)]);
    }
    expect((await call("POST", "/v1/datasets/ds_none/derive", { dedupe: {} })).status).toBe(404);
    expect((await call("POST", "/v1/datasets", { name: "x" })).body.error.message).toMatch(/rows or source/);
    expect(leftovers()).toEqual([]);
  });

  test("duplicates are left out on request while a dataset is made", async () => {
    const lines = [long(1), long(2), `${long(1)}!!`, long(2)].map((question) =>
      JSON.stringify({ question, solution: "1" }),
    );
    const { body } = await upload(Buffer.from(lines.join("\n")), "x.jsonl", { dedupe: '{"near":0.8}' });
    expect(body).toMatchObject({ rows: 2, duplicates: 0, source: { type: "file", dropped: { rows: 2 } } });
    expect(body.source.dropped.reasons).toEqual({ near_duplicate: 1, exact_duplicate: 1 });
    expect(await rowsOf(body.source.dropped.dataset)).toHaveLength(2);
    const made = await make(
      [
        { question: "a", solution: "1" },
        { question: "a", solution: "2" },
      ],
      { dedupe: { compare: "row" } },
    );
    expect(made.rows).toBe(2);
  });

  test("a dataset of a hub: its split is found, checked, and read again without a network", async () => {
    const rows = (from: number) =>
      Buffer.from(Array.from({ length: 5 }, (_, i) => `{"question":"hub ${from + i}","answer":"${i}"}\n`).join(""));
    hub = await startFakeHub(
      {
        "README.md": { contents: Buffer.from("# card") },
        "dataset_infos.json": { contents: Buffer.from("{}") },
        "main/train-00001-of-00002.jsonl": { contents: rows(5), lfs: true },
        "main/train-00000-of-00002.jsonl": { contents: rows(0), lfs: true },
        "main/test-00000-of-00001.parquet": { contents: fixture("table-gzip.parquet"), lfs: true },
        "socratic/train.jsonl": { contents: rows(90) },
      },
      { kind: "datasets" },
    );
    try {
      const create = (source: string) => call("POST", "/v1/datasets", { source });
      const { status, body } = await create("hf:org/model:main/train");
      expect([status, body]).toEqual([201, body]);
      expect(body).toMatchObject({
        name: "hf:org/model:main/train",
        rows: 10,
        source: {
          type: "hub",
          format: "jsonl",
          repo: "org/model",
          revision: hub.commit,
          split: "train",
          config: "main",
          files: ["main/train-00000-of-00002.jsonl", "main/train-00001-of-00002.jsonl"],
        },
      });
      expect((await rowsOf(body.id)).map((row) => row.question)).toEqual(
        Array.from({ length: 10 }, (_, i) => `hub ${i}`),
      );
      expect((await create("hf:org/model:test")).body).toMatchObject({ rows: 40, source: { format: "parquet" } });
      for (const [source, message] of [
        ["hf:org/model", /several configurations.*hf:org\/model:main\/train/],
        ["hf:org/model:dev", /no split dev; it has test, train/],
        ["hf:org/model:other/train", /no configuration other; it has main, socratic/],
        ["hf:org/model@nowhere:test", /does not have revision nowhere/],
        ["hf:org/none", /does not have|check the name/],
        ["org/model", /is not hf:/],
        ["hf:../x", /is not hf:org\/name/],
      ] as const) {
        const refused = await create(source);
        expect([source, refused.status, refused.body.error.message]).toEqual([
          source,
          400,
          expect.stringMatching(message),
        ]);
      }
      // What arrives is not what the hub announced.
      hub.files.get("socratic/train.jsonl")!.contents = rows(90);
      hub.intercept = (request, response) => {
        if (request.method !== "GET" || !request.url?.includes("socratic")) return false;
        response.writeHead(200, { "content-length": rows(80).length }).end(rows(80));
        return true;
      };
      expect((await create("hf:org/model:socratic/train")).body.error.message).toMatch(/does not have the hash/);
      hub.intercept = () => false;
      const asked = hub.requests.length;
      offline = true;
      expect((await create("hf:org/model:main/train")).body.content_hash).toBe(body.content_hash);
      expect((await create("hf:org/model:socratic/train")).body.error.message).toMatch(/not complete in the cache/);
      expect(hub.requests).toHaveLength(asked);
      offline = false;
      await hub.close();
      expect((await create("hf:org/model:test")).body).toMatchObject({ rows: 40 });
    } finally {
      offline = false;
      await hub.close().catch(() => undefined);
      hub = undefined;
    }
  });
});

function untar(archive: Buffer): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (let at = 0; archive[at] !== 0; ) {
    const name = archive.toString("utf8", at, archive.indexOf(0, at));
    const bytes = Number.parseInt(archive.toString("latin1", at + 124, at + 135), 8);
    files.set(name, archive.subarray(at + 512, at + 512 + bytes));
    at += 512 + Math.ceil(bytes / 512) * 512;
  }
  return files;
}
