/** The OpenAPI 3.1 document: generated from the routes, finished with openapi3-ts, served and written to openapi/. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type OpenAPIObject, OpenApiBuilder, type OperationObject, type PathItemObject } from "openapi3-ts/oas31";
import type { ApiApp, RouteModule } from "./context.ts";
import { creates } from "./creating-routes.ts";
import { errorSchema } from "./schemas.ts";

/** Tags in the order of the docs page. Routes name one of them. */
const TAGS: readonly (readonly [name: string, description: string])[] = [
  ["Teachers", "Models that see a question and its solution and write the explanation between them."],
  ["Students", "Models that judge an explanation by how well they then predict the solution."],
  ["Explanations", "What teachers write: once, streamed, or several ranked by a student."],
  ["Scores", "The reward of an explanation and its parts, per token if wanted."],
  ["Training", "Weights that learn: sessions whose caller writes the loop."],
  ["Training jobs", "Teachers and students that learn, in jobs that survive restarts."],
  ["Checkpoints", "Weights that training saved."],
  [
    "Distillation",
    "Datasets that students learn from, made by a teacher and chosen by a student, and the student itself.",
  ],
  ["Datasets", "Questions with solutions, for training and distillation. Immutable, named by what they contain."],
  ["OpenAI-compatible", "The routes of OpenAI's API that existing clients use, with vLLM's extensions."],
  ["Server", "Probes, version, metrics."],
];

const METHODS = ["get", "put", "post", "delete", "patch"] as const;

const DESCRIPTION = `Preceptor serves Reinforcement-Learned Teachers: a teacher model is given a question *and* its solution and
writes the explanation that connects them; a student model scores how much the explanation helps.

Errors always have the shape \`{"error": {"message", "type", "param", "code"}}\`; every response carries \`x-request-id\`.`;

/** Everything a client generator needs: info, servers, security, tags, and the error response of every operation. */
export function buildDocument(app: ApiApp, version: string): OpenAPIObject {
  if (!app.openAPIRegistry.definitions.some((d) => d.type === "schema" && d.schema === errorSchema)) {
    app.openAPIRegistry.register("Error", errorSchema);
  }
  const generated = app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "Preceptor",
      version,
      description: DESCRIPTION,
      license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
    },
  });
  const builder = OpenApiBuilder.create(generated as OpenAPIObject)
    .addServer({ url: "/", description: "This server" })
    .addSecurityScheme("bearer", { type: "http", scheme: "bearer", description: "The API key." })
    .addParameter("IdempotencyKey", {
      name: "Idempotency-Key",
      in: "header",
      description:
        "Of your choice, a new one for every request: sent again with the same body it gets the answer of the first time " +
        "(`idempotent-replayed: true`) for 24 hours, with another body 409 `idempotency_key_reused`, and while the first is " +
        "under way 409 `idempotency_in_progress`. Answers of failure are not kept.",
      schema: { type: "string", maxLength: 255 },
    })
    .addResponse("Error", {
      description: "An error; `code` names it, `message` says what to do next.",
      headers: {
        "x-request-id": { description: "Name this when you report a problem.", schema: { type: "string" } },
        "Retry-After": { description: "Seconds to wait, with 429 and 503.", schema: { type: "integer" } },
      },
      content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
    });
  const document = builder.getSpec();
  const used = new Set<string>();
  for (const { operation, method, path } of operations(document)) {
    operation.operationId ??= operationId(method, path);
    for (const tag of operation.tags ?? []) used.add(tag);
    if (method === "post" && creates(operation)) {
      operation.parameters = [...(operation.parameters ?? []), { $ref: "#/components/parameters/IdempotencyKey" }];
    }
    operation.responses = { ...operation.responses, default: { $ref: "#/components/responses/Error" } };
  }
  document.tags = [
    ...TAGS.filter(([name]) => used.has(name)).map(([name, description]) => ({ name, description })),
    ...[...used].filter((tag) => !TAGS.some(([name]) => name === tag)).map((name) => ({ name })),
  ];
  document.security = [{ bearer: [] }];
  return document;
}

interface Operation {
  operation: OperationObject;
  method: (typeof METHODS)[number];
  path: string;
}

function* operations(document: OpenAPIObject): Generator<Operation> {
  for (const [path, item] of Object.entries((document.paths ?? {}) as Record<string, PathItemObject>)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (operation) yield { operation, method, path };
    }
  }
}

/** Names the functions of generated clients: `GET /v1/teachers/{id}` → `getTeachersById`. */
function operationId(method: string, path: string): string {
  const words = path
    .replace(/^\/v1\//, "/")
    .replaceAll(/\{(\w+)\}/g, "by_$1")
    .split(/[^A-Za-z0-9]+/)
    .filter((word) => word !== "");
  return method + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
}

/** Writes openapi.json and openapi.yaml; the same routes always give the same bytes. */
export async function writeDocument(app: ApiApp, version: string, directory: string): Promise<void> {
  const builder = OpenApiBuilder.create(buildDocument(app, version));
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, "openapi.json"), `${builder.getSpecAsJson(undefined, 2)}\n`);
  await writeFile(join(directory, "openapi.yaml"), builder.getSpecAsYaml());
}

export function openapiRoutes(version: string): RouteModule {
  return (app) => {
    let body: string | undefined;
    app.get("/openapi.json", (c) => {
      body ??= JSON.stringify(buildDocument(app, version));
      return c.body(body, 200, { "content-type": "application/json" });
    });
  };
}
