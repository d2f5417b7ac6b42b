import { createRoute, z } from "@hono/zod-openapi";
import { HTTPException } from "hono/http-exception";
import { fail } from "../../errors.ts";
import { requireScope } from "../../http/auth.ts";
import { type ApiContext, clientSignal, type RouteModule } from "../../http/context.ts";
import { toList } from "../../http/list.ts";
import { boundaryOf, readMultipart } from "../../http/multipart.ts";
import { hashedParts } from "../../http/multipart-hash.ts";
import { jsonBody, jsonResponse } from "../../http/schemas.ts";
import { deletedSchema } from "../deleted.ts";
import {
  createDatasetSchema,
  type DatasetResource,
  datasetFormDocument,
  datasetListSchema,
  datasetSchema,
  derivationSchema,
  deriveDatasetSchema,
  exportQuery,
  listDatasetsQuery,
  listRowsQuery,
  rowListSchema,
} from "./schemas.ts";
import type { DatasetService } from "./service.ts";
import { streamPieces } from "./stream-pieces.ts";

const tags = ["Datasets"];
/** Reading too: the rows are what a model is trained on, and a key for explaining or scoring has no business with them. */
const middleware = [requireScope("train")];
const params = z.object({ id: z.string().max(80).openapi({ example: "ds_3f9k" }) });

const create = createRoute({
  method: "post",
  path: "/v1/datasets",
  tags,
  middleware,
  summary: "Make a dataset",
  description:
    "From a file (a form with the part `file`: Parquet, JSON lines, or CSV with a header), from `rows`, or from a hub (`source`). " +
    "Every row is checked: if one is bad nothing is kept, and one 400 `invalid_dataset` names the first 20 bad lines (`lines`). A dataset never changes.",
  request: {
    body: {
      required: true,
      // No zod schemas: a form would be read into memory, and its boundary judged too strictly.
      content: {
        "multipart/form-data": { schema: datasetFormDocument },
        "application/json": { schema: { $ref: "#/components/schemas/CreateDataset" } },
      },
    },
  },
  responses: { 201: jsonResponse(datasetSchema, "The dataset") },
});

const derive = createRoute({
  method: "post",
  path: "/v1/datasets/{id}/derive",
  tags,
  middleware,
  summary: "Derive datasets from a dataset",
  description:
    "In this order: `filter`, `decontaminate`, `dedupe`, `split`. What stays becomes a new dataset (two with `split`), what does " +
    "not a third one whose rows say why. All name their parent.",
  request: { params, body: jsonBody(deriveDatasetSchema) },
  responses: { 201: jsonResponse(derivationSchema, "The new datasets") },
});

const list = createRoute({
  method: "get",
  path: "/v1/datasets",
  tags,
  middleware,
  summary: "List datasets",
  request: { query: listDatasetsQuery },
  responses: { 200: jsonResponse(datasetListSchema, "A page of datasets") },
});

const get = createRoute({
  method: "get",
  path: "/v1/datasets/{id}",
  tags,
  middleware,
  summary: "Get a dataset",
  request: { params },
  responses: { 200: jsonResponse(datasetSchema, "The dataset") },
});

const rows = createRoute({
  method: "get",
  path: "/v1/datasets/{id}/rows",
  tags,
  middleware,
  summary: "Read rows of a dataset",
  description:
    "In the order of the file. `first_id` and `last_id` are row numbers. A page of long rows may end before `limit`. " +
    "With `metadata`, all rows are looked through.",
  request: { params, query: listRowsQuery },
  responses: { 200: jsonResponse(rowListSchema, "A page of rows") },
});

const binary = z.string().openapi({ format: "binary" });

const download = createRoute({
  method: "get",
  path: "/v1/datasets/{id}/export",
  tags,
  middleware,
  summary: "Download a dataset",
  request: { params, query: exportQuery },
  responses: {
    200: {
      description: "One JSON object a line, a Parquet file, or a tar archive",
      content: {
        "application/jsonl": { schema: z.string() },
        "application/vnd.apache.parquet": { schema: binary },
        "application/x-tar": { schema: binary },
      },
    },
  },
});

const remove = createRoute({
  method: "delete",
  path: "/v1/datasets/{id}",
  tags,
  middleware,
  summary: "Delete a dataset",
  description: "409 while a job that is not finished names it. Jobs that are finished go on naming it.",
  request: { params },
  responses: { 200: jsonResponse(deletedSchema, "It is gone") },
});

export const datasetRoutes =
  ({ datasets }: { datasets: DatasetService }): RouteModule =>
  (app) => {
    app.openAPIRegistry.register("CreateDataset", createDatasetSchema);
    app.openapi(create, async (c) => c.json(await made(c, datasets), 201));
    app.openapi(derive, async (c) =>
      c.json(await datasets.derive(c.req.valid("param").id, c.req.valid("json"), clientSignal(c)), 201),
    );
    app.openapi(list, async (c) => {
      const { data, hasMore } = await datasets.list(c.req.valid("query"));
      return c.json(toList(data, hasMore), 200);
    });
    app.openapi(get, async (c) => c.json(await datasets.get(c.req.valid("param").id), 200));
    app.openapi(rows, async (c) => {
      const { data, hasMore } = await datasets.rows(c.req.valid("param").id, c.req.valid("query"));
      const numberOf = (row: { row: number } | undefined): string | null => (row ? String(row.row) : null);
      const first_id = numberOf(data[0]);
      return c.json(
        { object: "list" as const, data, first_id, last_id: numberOf(data.at(-1)), has_more: hasMore },
        200,
      );
    });
    app.openapi(download, async (c) => {
      const { pieces, ...file } = await datasets.export(c.req.valid("param").id, c.req.valid("query").format);
      return (await streamPieces(c, pieces, file)) as never;
    });
    app.openapi(remove, async (c) => {
      const { id } = c.req.valid("param");
      await datasets.remove(id);
      return c.json({ id, object: "dataset", deleted: true as const }, 200);
    });
  };

async function made(c: ApiContext, datasets: DatasetService): Promise<DatasetResource> {
  const contentType = c.req.header("content-type") ?? "";
  if (/^multipart\/form-data\s*(;|$)/i.test(contentType)) return uploaded(c, datasets, boundaryOf(contentType));
  if (!/^application\/json\s*(;|$)/i.test(contentType)) {
    throw fail(
      "unsupported_media_type",
      "Send a form (multipart/form-data) with a file, or application/json with rows.",
    );
  }
  let body: unknown;
  try {
    body = JSON.parse(await c.req.text());
  } catch (cause) {
    throw new HTTPException(400, { message: "Malformed JSON in request body", cause });
  }
  return datasets.create(createDatasetSchema.parse(body), clientSignal(c));
}

async function uploaded(c: ApiContext, datasets: DatasetService, boundary: string): Promise<DatasetResource> {
  const { body } = c.req.raw;
  if (!body) throw fail("invalid_request", "The body is empty.");
  try {
    const read = readMultipart(body as unknown as AsyncIterable<Uint8Array>, boundary);
    const { formHash } = c.var;
    const parts = formHash ? hashedParts(read, formHash) : read;
    return await datasets.upload(parts, clientSignal(c), Number(c.req.header("content-length") ?? 0));
  } catch (error) {
    // The rest of what is being sent is not wanted.
    c.header("Connection", "close");
    throw error;
  }
}
