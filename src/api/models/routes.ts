import { createRoute, z } from "@hono/zod-openapi";
import type { ModelRole } from "../../db/records.ts";
import type { RouteModule } from "../../http/context.ts";
import { toList } from "../../http/list.ts";
import { jsonBody, jsonResponse, modelNameSchema, slugSchema } from "../../http/schemas.ts";
import { deletedSchema } from "../deleted.ts";
import { listModelsQuery, modelListSchema, modelSchema, registerModelSchema, updateModelSchema } from "./schemas.ts";
import type { ModelService } from "./service.ts";

/** Teachers and students are two views of one table: the same routes, mounted twice. */
export const modelRoutes =
  ({ models }: { models: ModelService }): RouteModule =>
  (app) => {
    for (const role of ["teacher", "student"] as const) mount(role, models)(app);
  };

const mount =
  (role: ModelRole, models: ModelService): RouteModule =>
  (app) => {
    const path = `/v1/${role}s`;
    const one = `${path}/{id}`;
    const tags = [role === "teacher" ? "Teachers" : "Students"];

    const register = createRoute({
      method: "post",
      path,
      tags,
      summary: `Register a ${role}`,
      description:
        "Header, config and tokenizer are checked at once, the device too; weights load on first use. Registering the same " +
        "id again with the same body answers 200, with another 409. An id may be both teacher and student: they share the " +
        "model, its metadata and pinning. A model that the server found in its models directory and registered by itself " +
        "gives way to yours.",
      request: { body: jsonBody(registerModelSchema) },
      responses: {
        200: jsonResponse(modelSchema, "It was registered before with the same body"),
        201: jsonResponse(modelSchema, `The new ${role}`),
      },
    });
    const list = createRoute({
      method: "get",
      path,
      tags,
      summary: `List ${role}s`,
      request: { query: listModelsQuery },
      responses: { 200: jsonResponse(modelListSchema, `A page of ${role}s`) },
    });
    const get = createRoute({
      method: "get",
      path: one,
      tags,
      summary: `Get a ${role}`,
      request: { params: z.object({ id: modelNameSchema }) },
      responses: { 200: jsonResponse(modelSchema, `The ${role}, at the version named`) },
    });
    const update = createRoute({
      method: "patch",
      path: one,
      tags,
      summary: `Change a ${role}`,
      description: "Another adapter makes a new version; work that names the old one is not touched.",
      request: { params: z.object({ id: slugSchema }), body: jsonBody(updateModelSchema) },
      responses: { 200: jsonResponse(modelSchema, `The ${role} as it is now`) },
    });
    const remove = createRoute({
      method: "delete",
      path: one,
      tags,
      summary: `Delete a ${role}`,
      description:
        "Hides the model: an id that is both teacher and student is one model, so both are gone (kept apart, the same " +
        "`id@version` could later mean two things). What was made with its versions stays readable, and the id may be " +
        "registered anew: it goes on with the next version.",
      request: { params: z.object({ id: slugSchema }) },
      responses: { 200: jsonResponse(deletedSchema, "It is gone") },
    });

    app.openapi(register, async (c) => {
      const { resource, created } = await models.register(role, c.req.valid("json"));
      return created ? c.json(resource, 201) : c.json(resource, 200);
    });
    app.openapi(list, async (c) => {
      const { data, hasMore } = await models.page(role, c.req.valid("query"));
      return c.json(toList(data, hasMore), 200);
    });
    app.openapi(get, async (c) => c.json(await models.get(role, c.req.valid("param").id), 200));
    app.openapi(update, async (c) =>
      c.json(await models.update(role, c.req.valid("param").id, c.req.valid("json")), 200),
    );
    app.openapi(remove, async (c) => {
      const { id } = c.req.valid("param");
      await models.remove(role, id);
      return c.json({ id, object: role, deleted: true as const }, 200);
    });
  };
