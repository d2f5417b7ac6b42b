import { afterEach, describe, expect, it } from "vitest";
import { type FakeServer, fakeServer, json } from "./fake-server.ts";
import { runCli } from "./run-cli.ts";

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

const solutionToken = (text: string, start: number, logprob: number) => ({
  id: 1,
  text,
  start,
  end: start + Buffer.byteLength(text),
  logprob,
  rank: 1,
  entropy: 0.5,
  baseline_logprob: logprob - 1,
});
const thoughtToken = (text: string, start: number, end: number, kl: number) => ({
  id: 1,
  text,
  start,
  end,
  teacher_logprob: -0.5,
  student_logprob: -0.5 - kl,
  kl,
  rank: 2,
  entropy: 1,
});

const scored = {
  object: "score",
  reward: -1.25,
  solution: { logprob_mean: -0.5, logprob_min: -4.7, reward: -0.55 },
  kl: { mean: 0.2, max: 5, reward: -0.7, estimator: "k1" },
  format: { ok: false, penalty: -1, violations: ["missing_closing_tag"] },
  baseline: { solution_logprob_mean: -2.5, uplift: 2 },
  tokens: {
    // "é" is two tokens of one byte each: they must come out as one character.
    thought: [
      thoughtToken("x ", 0, 2, 0),
      thoughtToken("\ufffd", 2, 3, 0.1),
      thoughtToken("\ufffd", 3, 4, 5),
      thoughtToken(" end\n", 4, 9, -1),
    ],
    solution: [solutionToken("4", 0, -0.01), solutionToken("2\u001b[2J", 1, -4.7)],
  },
  tokens_from: "text",
  warnings: ["foreign_text"],
  progress: [
    { end: 4, solution_logprob_mean: -2 },
    { end: 9, solution_logprob_mean: -0.5 },
  ],
  student: { id: "s", version: 1 },
  teacher: { id: "t", version: 2 },
};

const args = ["score", "--student", "s", "-t", "t", "-q", "q", "-s", "42", "-e", "x é end\n"];

async function serve(item: object): Promise<string> {
  server = await fakeServer((_, response) => json(response, 200, { object: "list", data: [item], usage: {} }));
  return server.url;
}

describe("preceptor score", () => {
  it("prints the reward and its parts", async () => {
    const url = await serve(scored);
    const { code, stdout } = await runCli([...args, "--baseline", "--kl", "topk_tail", "--k", "5", "--url", url]);
    expect(code).toBe(0);
    expect(stdout).toContain("reward    −1.250\n");
    expect(stdout).toContain("solution  −0.550  log-prob per token: mean −0.500 (p 61 %), lowest −4.700\n");
    expect(stdout).toContain("kl        −0.700  per token: mean 0.200, highest 5.000, estimator k1\n");
    expect(stdout).toContain("format    −1.000  violations: missing_closing_tag\n");
    expect(stdout).toContain("uplift +2.000");
    expect(stdout).toContain("warning: the teacher did not sample this text");
    expect(server?.seen[0]?.body).toEqual({
      student: "s",
      teacher: "t",
      items: [{ question: "q", solution: "42", explanation: "x é end\n" }],
      kl: { estimator: "topk_tail", k: 5 },
      include: ["baseline"],
    });
  });

  it("--view without a terminal is a plain table, one row per token", async () => {
    const url = await serve(scored);
    const { stdout } = await runCli([...args, "--view", "--progress", "--url", url]);
    expect(stdout).not.toContain("\u001b");
    const rows = stdout.split("\n").map((line) => line.trim().split(/ {2,}/));
    expect(rows).toContainEqual(["token", "byte", "log-prob", "p", "rank", "entropy", "without explanation"]);
    expect(rows).toContainEqual(['"4"', "0", "−0.010", "99.0 %", "1", "0.50", "−1.010"]);
    expect(rows).toContainEqual(['" end⏎"', "4", "−0.500", "0.500", "−1.000", "2", "1.00"]);
    expect(rows).toContainEqual(["−2.000", "4", "x é"]);
    expect(rows).toContainEqual(["−0.500", "9", "end"]);
  });

  it("--view in colour marks surprising tokens, joins split characters, and lets no escape sequence through", async () => {
    const url = await serve(scored);
    const { stdout } = await runCli(["--color", ...args, "--view", "--url", url]);
    // x is calm, é carries the larger KL of its halves (red), " end" is more natural to the student (blue).
    expect(stdout).toContain("x \u001b[38;5;231;48;5;160mé\u001b[39;49m\u001b[38;5;231;48;5;25m end⏎\u001b[39;49m\n");
    expect(stdout).toContain("4\u001b[38;5;231;48;5;160m2␛[2J\u001b[39;49m");
    expect(stdout).not.toContain("\u001b[2J");
    expect(stdout).toContain("below 1 %");
  });

  it.each([
    ["NO_COLOR", { NO_COLOR: "1" }, false],
    ["FORCE_COLOR", { FORCE_COLOR: "1" }, true],
  ])("respects %s", async (_, env: Record<string, string>, coloured) => {
    const url = await serve(scored);
    const { stdout } = await runCli([...args, "--view", "--url", url], { env });
    expect(stdout.includes("\u001b[")).toBe(coloured);
  });

  it("takes a stored explanation with --from and pins the teacher's version", async () => {
    server = await fakeServer(({ path }, response) =>
      path.startsWith("/v1/explanations/")
        ? json(response, 200, {
            id: "expl_9",
            teacher: { id: "t", version: 4 },
            question: "Q",
            solution: "S",
            choices: [
              { index: 0, explanation: "zero" },
              { index: 1, explanation: "one" },
            ],
          })
        : json(response, 200, { object: "list", data: [{ ...scored, kl: null, tokens: undefined }] }),
    );
    const { code } = await runCli([
      "score",
      "--student",
      "s",
      "--from",
      "expl_9",
      "--choice",
      "1",
      "--url",
      server.url,
    ]);
    expect(code).toBe(0);
    expect(server.seen[1]?.body).toEqual({
      student: "s",
      teacher: "t@4",
      items: [{ question: "Q", solution: "S", explanation: "one" }],
    });
    const { code: none, stderr } = await runCli(["score", "--from", "expl_9", "--choice", "2", "--url", server.url]);
    expect(none).toBe(2);
    expect(stderr).toContain("has 2 choices, counted from 0");
  });

  it("ends with 1 and the reason when the item could not be scored", async () => {
    const url = await serve({ object: "error", error: { message: "too long", code: "context_length_exceeded" } });
    expect(await runCli([...args, "--url", url])).toMatchObject({ code: 1, stderr: "preceptor: too long\n" });
  });
});
