/** The example in examples/closed-loop, against a server with an untrained miniature. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connect } from "../../examples/closed-loop/api.ts";
import { closedLoop, type Round } from "../../examples/closed-loop/loop.ts";
import type { DatasetResource } from "../../src/api/datasets/schemas.ts";
import { takeTasks } from "../miniature/tasks.ts";
import { type Running, startPreceptor } from "./running.ts";
import { miniatureDirectory, RLT_JOB, registerBoth } from "./training-fixture.ts";

let models: Awaited<ReturnType<typeof miniatureDirectory>>;
let server: Running;
beforeAll(async () => {
  models = await miniatureDirectory();
  server = await startPreceptor({ PRECEPTOR_MODELS_DIRS: models.directory, PRECEPTOR_THREADS: "1" });
  await registerBoth(server);
});
afterAll(async () => {
  await server?.close();
  await models?.remove();
});

async function upload(count: number, seed: number): Promise<string> {
  const rows = takeTasks(count, { seed }).map(({ question, solution }) => ({ question, solution }));
  return (await server.post<DatasetResource>("/v1/datasets", { rows }, 201)).id;
}

describe("the closed loop", () => {
  it("each round begins with the teacher and the student of the one before, and every artefact has its parents", async () => {
    const [dataset, heldOut] = [await upload(10, 5), await upload(4, 6)];
    const lora = { r: 4, lora_alpha: 8 };
    const lines: string[] = [];
    const rounds = await closedLoop(
      connect(server.url),
      {
        rounds: 2,
        teacher: "teacher",
        student: "student",
        dataset,
        heldOut,
        answer: "exact",
        training: { hyperparameters: { ...RLT_JOB.hyperparameters, max_steps: 1 }, lora, seed: 1 },
        distillation: { samples_per_question: 2, max_tokens: 12, well_formed: false, seed: 2 },
        finetune: { hyperparameters: { max_steps: 1, per_device_train_batch_size: 2 }, lora },
        evaluation: { max_tokens: 8 },
      },
      (line) => lines.push(line),
    );
    expect(rounds.map(({ teacher, student }) => [teacher, student])).toEqual([
      ["teacher@2", "student@2"],
      ["teacher@3", "student@3"],
    ]);
    const [first, second] = rounds as [Round, Round];
    expect(parentsOf(second, "tjob_")).toEqual(expect.arrayContaining(["teacher@2", "student@2", dataset]));
    expect(parentsOf(second, "djob_")).toEqual(["teacher@3", "student@2", "student@2", dataset]);
    // Whatever is not from outside is somewhere the child of something.
    const known = new Set([...first.lineage, ...second.lineage].map(({ id }) => id));
    const roots = [...first.lineage, ...second.lineage]
      .flatMap(({ parents }) => parents)
      .filter((id) => !known.has(id));
    expect([...new Set(roots)].sort()).toEqual([dataset, "student@1", "teacher@1"].sort());
    for (const { rows, accuracy } of rounds) {
      expect(rows).toMatch(/^ds_/);
      expect(accuracy).toEqual({ before: expect.any(Number), after: expect.any(Number) });
    }
    expect(lines.some((line) => /step \d+: \{/.test(line))).toBe(true);
    expect(lines.filter((line) => line.includes(" <- "))).toHaveLength(14);
  });
});

const parentsOf = ({ lineage }: Round, prefix: string): string[] =>
  lineage.find(({ id }) => id.startsWith(prefix))!.parents;
