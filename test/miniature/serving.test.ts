/** The whole program with an untrained miniature in both roles: what is trained later is served like this. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Running, startPreceptor } from "../e2e/running.ts";
import { STUDENT_FORMAT, TEACHER_FORMAT } from "./formats.ts";
import { miniatureConfig, modelConfig, randomWeights, writeModel } from "./model.ts";
import { takeTasks } from "./tasks.ts";
import { VOCABULARY } from "./vocabulary.ts";

interface Explanations {
  choices: { completion: string; explanation: string; finish_reason: string }[];
}

interface Scores {
  data: { format: { ok: boolean }; solution: { logprob_mean: number }; kl: { mean: number } | null }[];
}

let models: string;
let server: Running;
beforeAll(async () => {
  models = await mkdtemp(path.join(tmpdir(), "preceptor-miniature-"));
  const config = miniatureConfig();
  await writeModel(path.join(models, "miniature"), config, randomWeights(modelConfig(config), 1));
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models });
  await server.post("/v1/teachers", { id: "teacher", model: "miniature", format: TEACHER_FORMAT, context_length: 256 });
  await server.post("/v1/students", { id: "student", model: "miniature", format: STUDENT_FORMAT, context_length: 256 });
});
afterAll(async () => {
  await server?.close();
  await rm(models, { recursive: true, force: true });
});

test("an untrained teacher writes words of the vocabulary, up to a closing tag or the end of its turn", async () => {
  const [task] = takeTasks(1, { seed: 1 });
  const { choices } = await server.post<Explanations>("/v1/explanations", {
    teacher: "teacher",
    question: task!.question,
    solution: task!.solution,
    n: 8,
    seed: 1,
    max_tokens: 100,
  });
  expect(choices.length).toBe(8);
  for (const { explanation } of choices) {
    let rest = explanation;
    while (rest !== "") {
      const word = VOCABULARY.find((token) => rest.startsWith(token));
      expect(word, rest).toBeDefined();
      rest = rest.slice(word!.length);
    }
    expect(explanation).not.toContain("</explain>");
  }
  // Two of 48 tokens end it: a hundred tokens without either happen once in 70.
  expect(choices.filter(({ finish_reason }) => finish_reason === "stop").length).toBeGreaterThan(4);
});

test("an untrained student finds every explanation as good as any other", async () => {
  const tasks = takeTasks(12, { seed: 2 });
  const { data } = await server.post<Scores>("/v1/scores", {
    student: "student",
    teacher: "teacher",
    items: tasks.map(({ question, solution, explanation }) => ({ question, solution, explanation })),
    temperature: 1,
  });
  expect(data.length).toBe(tasks.length);
  for (const { format, solution, kl } of data) {
    expect(format.ok).toBe(true);
    // ± four times the deviation of a logit, and what a tied head loses (model.test.ts).
    expect(Math.abs(solution.logprob_mean + Math.log(VOCABULARY.length))).toBeLessThan(1.2);
    expect(Math.abs(kl!.mean)).toBeLessThan(0.2);
  }
});
