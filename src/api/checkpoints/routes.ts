import { createRoute, z } from "@hono/zod-openapi";
import { fail } from "../../errors.ts";
import { requireScope } from "../../http/auth.ts";
import { type ApiContext, clientSignal, type RouteModule } from "../../http/context.ts";
import { toList } from "../../http/list.ts";
import { jsonResponse } from "../../http/schemas.ts";
import { deletedSchema } from "../deleted.ts";
import { parseRange } from "./range.ts";
import { checkpointDetailSchema, checkpointListSchema, listCheckpointsQuery } from "./schemas.ts";
import type { CheckpointFile, CheckpointService } from "./service.ts";

const tags = ["Checkpoints"];
const middleware = [requireScope("train")];
const base = "/v1/checkpoints";
const params = z.object({ id: z.string().max(80).openapi({ example: "ckpt_7d1m" }) });
const binary = (type: string, description: string) => ({
  description,
  content: { [type]: { schema: z.string().openapi({ format: "binary" }) } },
});

const list = createRoute({
  method: "get",
  path: base,
  tags,
  middleware,
  summary: "List checkpoints",
  request: { query: listCheckpointsQuery },
  responses: { 200: jsonResponse(checkpointListSchema, "A page of checkpoints") },
});
const get = createRoute({
  method: "get",
  path: `${base}/{id}`,
  tags,
  middleware,
  summary: "Get a checkpoint and the names of its files",
  request: { params },
  responses: { 200: jsonResponse(checkpointDetailSchema, "The checkpoint") },
});
const file = createRoute({
  method: "get",
  path: `${base}/{id}/files/{name}`,
  tags,
  middleware,
  summary: "Download a file of a checkpoint",
  description: "Answers `Range` (one range), `If-None-Match` and `If-Range`.",
  request: { params: params.extend({ name: z.string().max(200).openapi({ example: "adapter_model.safetensors" }) }) },
  responses: {
    200: binary("application/octet-stream", "The file"),
    206: binary("application/octet-stream", "The range of it"),
    304: { description: "It has not changed" },
  },
});
const archive = createRoute({
  method: "get",
  path: `${base}/{id}/archive`,
  tags,
  middleware,
  summary: "Download a checkpoint as a tar archive",
  request: {
    params,
    query: z.strictObject({
      merged: z.stringbool().default(false).openapi({
        description:
          "Of an adapter: a whole model instead, its base with the adapter merged into the weights, in the base's own type.",
      }),
    }),
  },
  responses: { 200: binary("application/x-tar", "The archive") },
});
const remove = createRoute({
  method: "delete",
  path: `${base}/{id}`,
  tags,
  middleware,
  summary: "Delete a checkpoint",
  description: "409 while an unfinished job needs it, or a model's current version is made of it.",
  request: { params },
  responses: { 200: jsonResponse(deletedSchema, "It is gone") },
});

export const checkpointRoutes =
  ({ checkpoints }: { checkpoints: CheckpointService }): RouteModule =>
  (app) => {
    app.openapi(list, async (c) => {
      const { data, hasMore } = await checkpoints.list(c.req.valid("query"));
      return c.json(toList(data, hasMore), 200);
    });
    app.openapi(get, async (c) => c.json(await checkpoints.get(c.req.valid("param").id), 200));
    // Bodies of bytes are not typed as JSON ones.
    app.openapi(file, async (c) => {
      const { id, name } = c.req.valid("param");
      return sendFile(c, await checkpoints.file(id, name)) as never;
    });
    app.openapi(archive, async (c) => {
      const { id } = c.req.valid("param");
      const how = { ...c.req.valid("query"), signal: clientSignal(c) };
      const { bytes, read } = await checkpoints.archive(id, how);
      return c.body(ReadableStream.from(read()) as ReadableStream, 200, {
        "content-type": "application/x-tar",
        "content-length": String(bytes),
        "content-disposition": `attachment; filename="${id}.tar"`,
      }) as never;
    });
    app.openapi(remove, async (c) => {
      const { id } = c.req.valid("param");
      await checkpoints.remove(id);
      return c.json({ id, object: "checkpoint", deleted: true as const }, 200);
    });
  };

function sendFile(c: ApiContext, { bytes, etag, read }: CheckpointFile): Response {
  const headers = { etag, "accept-ranges": "bytes", "cache-control": "private, no-cache" };
  const known = c.req
    .header("if-none-match")
    ?.split(",")
    .map((tag) => tag.trim().replace(/^W\//, ""));
  if (known?.some((tag) => tag === etag || tag === "*")) return c.body(null, 304, headers);
  const whole = c.req.header("if-range");
  const range = whole === undefined || whole === etag ? parseRange(c.req.header("range"), bytes) : undefined;
  if (range === "unsatisfiable") {
    c.header("content-range", `bytes */${bytes}`);
    throw fail("range_not_satisfiable", `the file has ${bytes} bytes`, { param: "Range" });
  }
  const { start, end } = range ?? { start: 0, end: bytes };
  return c.body(ReadableStream.from(read(start, end)) as ReadableStream, range ? 206 : 200, {
    ...headers,
    "content-type": "application/octet-stream",
    "content-length": String(end - start),
    ...(range ? { "content-range": `bytes ${start}-${end - 1}/${bytes}` } : {}),
  });
}
