/** The rows of a Parquet file: row group by row group, and in each of them page by page. */
import { type AsyncBuffer, parquetMetadataAsync, parquetSchema, type RowGroup, type SchemaTree } from "hyparquet";
import { assembleNested } from "hyparquet/src/assemble.js";
import { getTreePath } from "hyparquet/src/schema.js";
import { MAX_FOOTER_BYTES } from "./limits.ts";
import { readPages } from "./pages.ts";
import { PARSERS, toRow } from "./values.ts";

const MAGIC = "PAR1";
const ENCRYPTED = "PARE";

/** A row, or a sentence that says why it cannot be read. Throws an Error with a sentence for the whole file. */
export async function* readRows(file: AsyncBuffer): AsyncGenerator<Record<string, unknown> | string> {
  await assertFooter(file);
  const metadata = await parquetMetadataAsync(file, { geoparquet: false });
  const tree = parquetSchema(metadata);
  const names = tree.children.map(({ element }) => element.name);
  let first = 1;
  for (const group of metadata.row_groups) {
    const count = Number(group.num_rows);
    try {
      yield* rowsOfGroup(file, group, tree, names);
    } catch (error) {
      throw new Error(`rows ${first} to ${first + count - 1}: ${(error as Error).message}`, { cause: error });
    }
    first += count;
  }
}

/** The last eight bytes: length of the footer, "PAR1". */
async function assertFooter(file: AsyncBuffer): Promise<void> {
  const end = Buffer.from(await file.slice(Math.max(0, file.byteLength - 8), file.byteLength));
  const magic = end.subarray(-4).toString("latin1");
  if (magic === ENCRYPTED) throw new Error("it is encrypted");
  if (magic !== MAGIC || end.length < 8) throw new Error("it does not end as a Parquet file does; was it cut?");
  const bytes = end.readUInt32LE(0);
  if (bytes > file.byteLength - 12 || bytes > MAX_FOOTER_BYTES) {
    throw new Error(`its footer says that it has ${bytes} bytes; the file has ${file.byteLength}`);
  }
}

async function* rowsOfGroup(
  file: AsyncBuffer,
  group: RowGroup,
  tree: SchemaTree,
  names: readonly string[],
): AsyncGenerator<Record<string, unknown> | string> {
  const columns = tree.children.map((child) => createColumn(file, group, tree, child));
  let left = Number(group.num_rows);
  while (left > 0) {
    let ready = left;
    for (const column of columns) ready = Math.min(ready, await column.ready());
    if (ready === 0) throw new Error(`a column ends ${left} rows too early`);
    const taken = columns.map((column) => column.take(ready));
    for (let i = 0; i < ready; i++) {
      yield toRow(
        names,
        taken.map((values) => values[i]),
      );
    }
    left -= ready;
  }
}

/** A column of the table, made of one physical column or, where it is nested, of several. */
function createColumn(file: AsyncBuffer, group: RowGroup, tree: SchemaTree, child: SchemaTree) {
  const { name } = child.element;
  const leaves = group.columns.flatMap(({ meta_data: column, file_path }) => {
    if (!column || file_path) throw new Error("its columns lie in other files");
    if (column.path_in_schema[0] !== name) return [];
    return [createLeaf(readPages(file, column, getTreePath(tree, column.path_in_schema)), column.path_in_schema)];
  });
  if (leaves.length === 0) throw new Error(`the column ${name} has no data`);
  return {
    /** Rows that can be taken; 0 at the end. */
    async ready(): Promise<number> {
      let ready = Number.POSITIVE_INFINITY;
      for (const leaf of leaves) ready = Math.min(ready, await leaf.ready());
      return ready;
    },
    take(count: number): ArrayLike<unknown> {
      if (child.children.length === 0) return leaves[0]!.take(count);
      const parts = new Map(leaves.map((leaf) => [leaf.path.join("."), leaf.take(count)]));
      assembleNested(parts, child, PARSERS);
      return parts.get(child.path.join(".")) ?? [];
    },
  };
}

type Values = Awaited<ReturnType<ReturnType<typeof readPages>["next"]>>["value"];

function createLeaf(pages: AsyncGenerator<Values>, path: string[]) {
  let values: Values = [];
  let at = 0;
  return {
    path,
    async ready(): Promise<number> {
      while (at >= values.length) {
        const { done, value } = await pages.next();
        if (done) return 0;
        values = value;
        at = 0;
      }
      return values.length - at;
    },
    take(count: number): Values {
      const taken = values.slice(at, at + count);
      at += count;
      return taken;
    },
  };
}
