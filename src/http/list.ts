/** Lists: `?after=&limit=&order=` in, `{object:"list", data, first_id, last_id, has_more}` out. */
import { z } from "@hono/zod-openapi";

/** A page of a hundred resources stays below a megabyte; twenty fill a screen. */
export const MAX_LIST_LIMIT = 100;
export const DEFAULT_LIST_LIMIT = 20;

/** Extend with filters: `listQuery.extend({ status: … })` stays strict. */
export const listQuery = z.strictObject({
  after: z
    .string()
    .min(1)
    .max(200)
    .optional()
    .openapi({ description: "Id of the last item already seen; the page begins behind it." }),
  limit: z.coerce
    .number()
    .int()
    .min(1)
    .max(MAX_LIST_LIMIT)
    .default(DEFAULT_LIST_LIMIT)
    .openapi({ description: "How many items the page holds at most." }),
  order: z
    .enum(["asc", "desc"])
    .default("desc")
    .openapi({ description: "By creation time; `desc` begins with the newest." }),
});

export interface List<T> {
  object: "list";
  data: T[];
  first_id: string | null;
  last_id: string | null;
  has_more: boolean;
}

/** Wraps one page of rows that have an id. */
export function toList<T extends { id: string }>(data: T[], hasMore: boolean): List<T> {
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: hasMore,
  };
}

/** The schema of a list of X, named in the document: `listSchema("TeacherList", teacherSchema)`. */
export function listSchema<T extends z.ZodType>(name: string, item: T) {
  return z
    .object({
      object: z.literal("list"),
      data: z.array(item),
      first_id: z.string().nullable(),
      last_id: z.string().nullable(),
      has_more: z.boolean(),
    })
    .openapi(name);
}
