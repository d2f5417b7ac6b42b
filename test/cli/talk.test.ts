import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { event, type FakeServer, fakeServer, json } from "./fake-server.ts";
import { runCli, startCli } from "./run-cli.ts";

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

const explanation = (choices: object[], extra: object = {}) => ({
  id: "expl_1",
  object: "explanation",
  status: "completed",
  teacher: { id: "smol", version: 3 },
  question: "2 + 2?",
  solution: "4",
  choices,
  usage: { prompt_tokens: 9, completion_tokens: 4 },
  sampling: { seed: 11, temperature: 0.7 },
  ...extra,
});

const twoTeachers = {
  object: "list",
  data: [{ id: "a" }, { id: "b" }],
  first_id: "a",
  last_id: "b",
  has_more: false,
};

describe("preceptor explain", () => {
  it("streams the text to stdout and the summary to stderr, with the key in the header", async () => {
    server = await fakeServer((_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(event("explanation.created", { id: "expl_1" }));
      response.write(": ping\n\n");
      // Bytes cut inside a character: the client must put them together again.
      const delta = Buffer.from(event("explanation.delta", { index: 0, delta: "Zwei ≥ \u001b]0;evil\u0007" }));
      const cut = delta.indexOf("≥") + 1;
      response.write(delta.subarray(0, cut));
      setTimeout(() => {
        response.write(delta.subarray(cut));
        const result = explanation([{ index: 0, explanation: "Zwei ≥", finish_reason: "stop" }]);
        response.end(event("explanation.completed", { explanation: result }));
      }, 20);
    });
    const args = ["explain", "-t", "smol", "-q", "2 + 2?", "-s", "-", "--seed", "11", "--url", server.url];
    const { code, stdout, stderr } = await runCli(args, { env: { PRECEPTOR_API_KEY: "k-1" }, input: "4" });
    expect(stderr).toContain("expl_1 · smol@3 · stop · 4 tokens");
    expect(code).toBe(0);
    expect(stdout).toBe("Zwei ≥ ␛]0;evil␇\n");
    expect(server.seen).toEqual([
      {
        method: "POST",
        path: "/v1/explanations",
        authorization: "Bearer k-1",
        body: { teacher: "smol", question: "2 + 2?", solution: "4", n: 1, seed: 11, stream: true },
      },
    ]);
  });

  it("reads question and solution from a JSON object on stdin and prints the resource with --json", async () => {
    const result = explanation([{ index: 0, explanation: "E", finish_reason: "stop" }]);
    server = await fakeServer((_, response) => response.end(event("explanation.completed", { explanation: result })));
    const { code, stdout } = await runCli(["explain", "-t", "smol", "--json", "--url", `${server.url}/`], {
      input: JSON.stringify({ question: "q?", solution: "s", other: 1 }),
    });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(result);
    expect(server.seen[0]?.body).toMatchObject({ question: "q?", solution: "s" });
  });

  it("reads texts from files and ranks several explanations", async () => {
    const path = join(tmpdir(), `preceptor-question-${process.pid}.txt`);
    await writeFile(path, "from a file");
    const score = (reward: number) => ({
      reward,
      solution: { reward: reward / 2, logprob_mean: -1, logprob_min: -2 },
      kl: { reward: reward / 2, mean: 0, max: 0, estimator: "k1" },
    });
    const choices = [
      { index: 0, explanation: "first", finish_reason: "length", score: score(-4) },
      { index: 1, explanation: "second", finish_reason: "stop", score: score(-1) },
    ];
    server = await fakeServer((_, response) =>
      response.end(event("explanation.completed", { explanation: explanation(choices, { best: 1 }) })),
    );
    const args = ["explain", "-t", "a", "-q", `@${path}`, "-s", "@@at", "-n", "2", "--rank-by", "b"];
    const { stdout } = await runCli([...args, "--url", server.url]);
    expect(server.seen[0]?.body).toMatchObject({ question: "from a file", solution: "@at", rank_by: { student: "b" } });
    expect(stdout).toContain("── 0 (length)\nfirst\n");
    const ranked = stdout.slice(stdout.indexOf("choice"));
    expect(ranked.split("\n")[1]).toMatch(/1\s+−1\.000\s+−0\.500\s+−0\.500\s+← best/);
    expect(ranked.split("\n")[2]).toMatch(/0\s+−4\.000/);
  });

  it("turns an error event and an error answer into one line with the next step", async () => {
    const error = { message: "the engine failed", type: "server_error", code: "engine_failed", param: null };
    server = await fakeServer((seen, response) => {
      if (seen.path === "/v1/explanations") response.end(event("error", { error }));
      else json(response, 401, { error: { message: "no key", code: "missing_api_key", param: null } });
    });
    const texts = ["-q", "q", "-s", "s", "--url", server.url];
    const stream = await runCli(["explain", "-t", "a", ...texts]);
    expect(stream).toMatchObject({ code: 1, stderr: "preceptor: the engine failed\n" });
    const list = await runCli(["explain", ...texts]);
    expect(list).toMatchObject({ code: 1, stderr: "preceptor: no key. Set PRECEPTOR_API_KEY to the server's key.\n" });
  });

  it("waits for a model that is being prepared, as long as the server asks to", async () => {
    const result = explanation([{ index: 0, explanation: "E", finish_reason: "stop" }]);
    const loading = {
      message: "smol is being converted",
      type: "unavailable_error",
      code: "model_loading",
      param: null,
    };
    server = await fakeServer((_, response) => {
      if ((server?.seen.length ?? 0) > 1) response.end(event("explanation.completed", { explanation: result }));
      else response.setHeader("retry-after", "1") && json(response, 503, { error: loading });
    });
    const { code, stderr } = await runCli(["explain", "-t", "a", "-q", "q", "-s", "s", "--url", server.url]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^smol is being converted; waiting …\n/);
    expect(server.seen).toHaveLength(2);
  });

  it("asks for a name when several teachers are registered", async () => {
    server = await fakeServer((_, response) => json(response, 200, twoTeachers));
    const { code, stderr } = await runCli(["explain", "-q", "q", "-s", "s", "--url", server.url]);
    expect(code).toBe(2);
    expect(stderr).toContain("name one with --teacher: a, b.");
  });

  it("leaves at Ctrl-C with 130, closing the connection so that the server can stop", async () => {
    let closed: () => void = () => {};
    const left = new Promise<void>((resolve) => {
      closed = resolve;
    });
    server = await fakeServer((_, response) => {
      response.write(event("explanation.delta", { index: 0, delta: "thinking" }));
      response.on("close", closed);
    });
    const child = startCli(["explain", "-t", "a", "-q", "q", "-s", "s", "--url", server.url]);
    await once(child.stdout, "data");
    child.kill("SIGINT");
    const [code] = await once(child, "close");
    await left;
    expect(code).toBe(130);
  });
});

describe("preceptor models list", () => {
  it("joins the roles of one id and follows pages", async () => {
    const model = (id: string, object: string) => ({
      id,
      object,
      version: 1,
      status: "ready",
      model: `models/${id}`,
      precision: "fp32",
      context_length: 512,
      parameters: 143_808,
    });
    server = await fakeServer(({ path }, response) => {
      const role = path.includes("teachers") ? "teacher" : "student";
      const second = path.includes("after=a");
      const data = role === "student" ? [model("a", role)] : [model(second ? "b" : "a", role)];
      json(response, 200, { object: "list", data, last_id: data[0]?.id, has_more: role === "teacher" && !second });
    });
    const { stdout } = await runCli(["models", "list"], { env: { PRECEPTOR_URL: server.url } });
    expect(stdout.split("\n").map((line) => line.split(/ {2,}/).slice(0, 4))).toEqual([
      ["id", "version", "roles", "status"],
      ["a", "1", "teacher, student", "ready"],
      ["b", "1", "teacher", "ready"],
      [""],
    ]);
  });

  it("says so when something else answers", async () => {
    server = await fakeServer((_, response) => response.end("<html>"));
    const { code, stderr } = await runCli(["models", "list", "--url", server.url]);
    expect(code).toBe(1);
    expect(stderr).toContain("is not Preceptor");
  });
});
