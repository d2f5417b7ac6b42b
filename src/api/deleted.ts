import { z } from "@hono/zod-openapi";

/** What every DELETE answers. */
export const deletedSchema = z
  .object({ id: z.string(), object: z.string(), deleted: z.literal(true) })
  .openapi("Deleted");
