/** `POST /v1/datasets/{id}/score`: stored rows read by any student, and ranked. A distillation job that writes nothing of its own. */
import { z } from "@hono/zod-openapi";
import type { DistillConfig } from "../../distill/config.ts";
import { DEFAULT_SAMPLING } from "../../distill/config.ts";
import { resolveDistillation } from "../../distill/resolve.ts";
import { fail } from "../../errors.ts";
import { metadataSchema, modelNameSchema } from "../../http/schemas.ts";
import { DEFAULT_TOP_K } from "../../rlt/kl.ts";
import { estimatorSchema } from "../scores/schemas.ts";
import { budgetSchema, coefficientsSchema } from "../training/jobs/request-schemas.ts";
import { able, contextOf, type DistillCheckDeps, hasTrace, someRow } from "./check.ts";
import { filterFields, selectSchema } from "./request-schemas.ts";

export const rescoreSchema = z
  .strictObject({
    student: modelNameSchema,
    teacher: modelNameSchema.optional().openapi({
      description:
        "With one, KL counts too. Without: the student's side alone, which is how texts from anywhere compare.",
    }),
    temperature: z.number().min(0.01).max(100).default(DEFAULT_SAMPLING.temperature),
    coefficients: coefficientsSchema,
    kl: estimatorSchema.default({ estimator: "topk_tail", k: DEFAULT_TOP_K }).openapi({
      description: "Default topk_tail: k1 misleads for texts that the teacher has not drawn itself.",
    }),
    select: selectSchema.default("all"),
    ...filterFields,
    preview: z.int().min(1).max(10_000).optional(),
    budget: budgetSchema.optional(),
    name: z.string().min(1).max(200).optional(),
    metadata: metadataSchema.default({}),
  })
  .openapi("ScoreDataset", { example: { student: "smollm2", select: "best" } });
export type Rescore = z.output<typeof rescoreSchema>;

export async function checkRescore(deps: DistillCheckDeps, dataset: string, request: Rescore): Promise<DistillConfig> {
  const { temperature, kl, teacher: named, metadata: _, ...asked } = request;
  const student = await able(deps.models, request.student, "student", {
    logprobs: true,
    ...(named === undefined ? {} : needsOf(kl)),
  });
  const teacher =
    named === undefined
      ? null
      : await able(deps.models, named, "teacher", { logprobs: true, topk: kl.estimator === "topk_tail" });
  if (!(await someRow(await deps.datasets.open(dataset), hasTrace))) {
    throw fail("invalid_value", "the dataset's rows have no reasoning_trace that could be scored", { param: "id" });
  }
  const resolved = resolveDistillation(
    { ...asked, teacher: named ?? "", dataset, samples_per_question: 1, ...DEFAULT_SAMPLING, temperature },
    // Nothing is drawn.
    { random: () => 0 },
  );
  const { filters } = resolved;
  if (request.fits_context === true) filters.fits_context = contextOf(student);
  return {
    ...resolved,
    from: "rows",
    teacher: teacher?.name ?? null,
    student: student.name,
    kl,
    filters,
    finetune: null,
    evaluate: null,
  };
}

const needsOf = ({ estimator }: Rescore["kl"]) => ({
  at_ids: estimator === "topk_tail",
  distributions: estimator === "full",
});
