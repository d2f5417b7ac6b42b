import { z } from "@hono/zod-openapi";
import { listQuery, listSchema } from "../../http/list.ts";
import { metadataSchema, timestampSchema } from "../../http/schemas.ts";

export const checkpointSchema = z
  .object({
    id: z.string().openapi({ example: "ckpt_7d1m…" }),
    object: z.literal("checkpoint"),
    created_at: timestampSchema,
    job: z.string().nullable().openapi({ description: "null: a training session saved it." }),
    step: z.int(),
    kind: z.string().openapi({ description: "adapter (PEFT's layout) or full (a whole checkpoint)." }),
    model: z.string().nullable().openapi({ description: "What it was trained from: id@version." }),
    weights_hash: z.string(),
    is_best: z.boolean(),
    config: z.record(z.string(), z.unknown()).openapi({ description: "What it was made of." }),
    metadata: metadataSchema,
  })
  .openapi("Checkpoint");
export type CheckpointResource = z.infer<typeof checkpointSchema>;

export const checkpointDetailSchema = checkpointSchema
  .extend({ files: z.array(z.object({ name: z.string(), bytes: z.int() })) })
  .openapi("CheckpointDetail");
export type CheckpointDetail = z.infer<typeof checkpointDetailSchema>;

export const checkpointListSchema = listSchema("CheckpointList", checkpointSchema);
export const listCheckpointsQuery = listQuery.extend({
  job: z.string().min(1).max(80).optional().openapi({ description: "Only those of this job." }),
});
