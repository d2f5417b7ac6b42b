import { asc, desc, type SQL, sql } from "drizzle-orm";
import type { AnyPgColumn, PgTable } from "drizzle-orm/pg-core";
import { fail } from "../errors.ts";
import { guarded } from "./errors.ts";
import type { Page, PageQuery } from "./records.ts";

type ListedTable = PgTable & { createdAt: AnyPgColumn; id: AnyPgColumn };

/** What a list query must contain to yield one page; `limit` is one row more than asked for, to see whether more follow. */
export interface PageClauses {
  /** Rows beyond `after`; undefined on the first page. */
  beyond: SQL | undefined;
  orderBy: SQL[];
  limit: number;
}

/**
 * One page in order of (created_at, id): the id breaks ties, so that rows of the same millisecond are neither skipped
 * nor repeated, whatever is inserted or removed between two pages.
 */
export async function readPage<Row>(
  table: ListedTable,
  page: PageQuery,
  read: (clauses: PageClauses) => PromiseLike<Row[]>,
  exists: (id: string) => Promise<boolean>,
): Promise<Page<Row>> {
  const { createdAt, id } = table;
  const [direction, than] = page.order === "asc" ? [asc, sql`>`] : [desc, sql`<`];
  const beyond =
    page.after === undefined
      ? undefined
      : sql`(${createdAt}, ${id}) ${than} (select ${createdAt}, ${id} from ${table} where ${id} = ${sql.param(page.after, id)})`;
  const orderBy = [direction(createdAt), direction(id)];
  const rows = await guarded(read({ beyond, orderBy, limit: page.limit + 1 }));
  // Beyond a row that is gone there is nothing, which would read as the end of the list.
  if (rows.length === 0 && page.after !== undefined && !(await exists(page.after))) {
    throw fail("invalid_value", "after names nothing that exists (any more); list again without it", {
      param: "after",
    });
  }
  return { rows: rows.slice(0, page.limit), hasMore: rows.length > page.limit };
}
