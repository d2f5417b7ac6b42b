/** `distil`: a dataset without a server, of an untrained miniature. */
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DatasetRow } from "../../src/datasets/row.ts";
import { miniatureDirectory } from "../e2e/training-fixture.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "../miniature/formats.ts";
import { takeTasks } from "../miniature/tasks.ts";
import { type CliResult, runCli, startCli } from "./run-cli.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
let scratch = "";
let questions = "";
beforeAll(async () => {
  models = await miniatureDirectory();
  scratch = await mkdtemp(path.join(tmpdir(), "preceptor-distil-cli-"));
  questions = path.join(scratch, "questions.jsonl");
  const tasks = takeTasks(200, { seed: 9 });
  const rows = tasks.map(({ question, solution }, i) => ({ id: `q${i}`, question, solution, level: i }));
  await writeFile(questions, rows.map((row) => JSON.stringify(row)).join("\n"));
});
afterAll(async () => {
  await models?.remove();
  await rm(scratch, { recursive: true, force: true });
});

const env = () => ({ PRECEPTOR_DATA_DIR: path.join(scratch, "data"), PRECEPTOR_THREADS: "1", HF_HUB_OFFLINE: "1" });
const at = (name: string): string => path.join(scratch, name);

function argumentsOf(out: string, ...more: string[]): string[] {
  const model = path.join(models.directory, "miniature");
  const formats = [
    "--teacher-format",
    JSON.stringify(TEACHER_FORMAT),
    "--student-format",
    JSON.stringify(STUDENT_FORMAT),
  ];
  const sampling = ["--samples", "3", "--max-tokens", "12", "--no-well-formed", "--seed", "4"];
  return ["distil", questions, "--teacher", model, "--student", model, ...formats, ...sampling, "--out", out, ...more];
}
const distil = (out: string, ...more: string[]): Promise<CliResult> =>
  runCli(argumentsOf(out, ...more), { env: env() });

async function rowsOf(file: string): Promise<DatasetRow[]> {
  const text = await readFile(file, "utf8");
  return text
    .trimEnd()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as DatasetRow);
}

describe("distil", () => {
  it("writes the rows that were selected and the ones left out, and nothing else anywhere", async () => {
    const [out, errors] = [at("rows.jsonl"), at("left-out.jsonl")];
    const { code, stdout, stderr } = await distil(out, "--preview", "20", "--errors", errors);
    expect(stderr).toMatch(/rows\.jsonl: 20 rows of 20\/20 questions in .*; left out: 40 not_chosen\n$/);
    expect([code, stdout]).toEqual([0, ""]);
    const rows = await rowsOf(out);
    expect(rows.map(({ id }) => id)).toEqual(Array.from({ length: 20 }, (_, i) => `q${i}`));
    expect(rows[3]).toMatchObject({
      metadata: { level: 3 },
      provenance: {
        row: 3,
        attempts: 3,
        teacher: expect.stringMatching(/miniature@sha256:/),
        score: { reward: expect.any(Number), "kl.mean": expect.any(Number) },
      },
    });
    const left = await rowsOf(errors);
    expect(left.map(({ provenance }) => provenance?.reason)).toEqual(Array(40).fill("not_chosen"));
    const rewards = (row: DatasetRow): number => (row.provenance as { score: { reward: number } }).score.reward;
    const best = new Map(rows.map((row) => [row.id, rewards(row)]));
    expect(left.every((row) => rewards(row) <= best.get(row.id)!)).toBe(true);
    expect(existsSync(`${out}.partial`)).toBe(false);
    const again = await distil(out, "--preview", "20");
    expect(again.code).toBe(1);
    expect(again.stderr).toContain("exists already");
  });

  it("ends with exactly the rows asked for, and says where the questions did not suffice", async () => {
    const exact = await distil(at("target.jsonl"), "--target", "7");
    expect(exact.code).toBe(0);
    expect(await rowsOf(at("target.jsonl"))).toHaveLength(7);
    const short = await distil(at("short.jsonl"), "--target", "7", "--preview", "4", "--min-reward", "1000");
    expect([short.code, await rowsOf(at("short.jsonl"))]).toEqual([0, []]);
    expect(short.stderr).toContain("The questions did not suffice for the 7 rows asked for.");
    expect(short.stderr).toContain("12 below_threshold");
  });

  it("killed and interrupted, it goes on where it was, with the rows of a run that nobody disturbed", async () => {
    const [whole, out] = [at("whole.jsonl"), at("killed.jsonl")];
    expect((await distil(whole)).code).toBe(0);
    for (const signal of ["SIGKILL", "SIGINT"] as const) {
      const before = await recorded(out);
      const child = startCli(argumentsOf(out), { env: env() });
      child.stdin.end();
      const said = text(child.stderr);
      while ((await recorded(out)) <= before && child.exitCode === null) await delay(5);
      child.kill(signal);
      await once(child, "close");
      expect(existsSync(out)).toBe(false);
      if (signal === "SIGKILL") continue;
      expect(child.exitCode).toBe(130);
      expect(await said).toContain("the same command goes on with it");
    }
    const kept = await recorded(out);
    expect(kept).toBeGreaterThan(0);
    const other = await distil(out, "--temperature", "0.9");
    expect(other.code).toBe(1);
    expect(other.stderr).toMatch(/begun with another sampling; run the command as before .*, remove the folder/);
    expect(await recorded(out)).toBe(kept);
    expect((await distil(out)).code).toBe(0);
    expect(await readFile(out, "utf8")).toBe(await readFile(whole, "utf8"));
    expect(existsSync(`${out}.partial`)).toBe(false);
  });

  it("names what is wrong with the questions by line, and leaves nothing behind", async () => {
    const broken = at("broken.csv");
    await writeFile(broken, 'question,solution\n"1 + 1",2\n"2 + 2",\n');
    const args = argumentsOf(at("none.jsonl"));
    args[1] = broken;
    const { code, stdout, stderr } = await runCli(args, { env: env() });
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain("line 3: solution is missing or empty");
    args[1] = at("missing.jsonl");
    const missing = await runCli(args, { env: env() });
    expect(missing.code).toBe(2);
    expect(missing.stderr).toContain("there is no such file");
    expect([existsSync(at("none.jsonl")), existsSync(at("none.jsonl.partial"))]).toEqual([false, false]);
  });

  it("refuses models that are none and requests that make no sense", async () => {
    const args = argumentsOf(at("none.jsonl"));
    const nowhere = await runCli([...args, "--teacher", "/nowhere"], { env: env() });
    expect(nowhere.code).toBe(1);
    expect(nowhere.stderr).toMatch(/--teacher \/nowhere: \/nowhere does not exist/);
    const alone = ["distil", questions, "--teacher", path.join(models.directory, "miniature"), "--select", "best"];
    const without = await runCli([...alone, "--out", at("none.jsonl")], { env: env() });
    expect(without.stderr).toContain("student is required");
    const where = await distil(at("none.jsonl"), "--where", "{");
    expect(where.code).toBe(2);
    expect(existsSync(at("none.jsonl.partial"))).toBe(false);
  });
});

/** Lines in the journals of what `out` is made of. */
async function recorded(out: string): Promise<number> {
  const jobs = path.join(`${out}.partial`, "jobs");
  const names = await readdir(jobs, { recursive: true }).catch(() => []);
  let lines = 0;
  for (const name of names.filter((file) => file.endsWith(".jsonl"))) {
    lines += (await readFile(path.join(jobs, name), "utf8").catch(() => "")).split("\n").length - 1;
  }
  return lines;
}

async function text(stream: AsyncIterable<Buffer>): Promise<string> {
  let all = "";
  for await (const chunk of stream) all += chunk.toString();
  return all;
}
