import { createRoute, z } from "@hono/zod-openapi";
import { requireScope } from "../../http/auth.ts";
import { type ApiContext, clientSignal, type RouteModule } from "../../http/context.ts";
import { POLICY } from "../../report/style.ts";
import type { ReportService } from "./service.ts";

const middleware = [requireScope("train")];
const responses = {
  200: { description: "One page, complete in itself", content: { "text/html": { schema: z.string() } } },
};
const params = (example: string) => ({ params: z.object({ id: z.string().max(80).openapi({ example }) }) });

const ofDataset = createRoute({
  method: "get",
  path: "/v1/datasets/{id}/report",
  tags: ["Datasets"],
  middleware,
  summary: "Report of a dataset",
  description:
    "An HTML page that needs nothing else: lengths, the parts of the reward, rejections by reason, the best and worst rows with " +
    "their tokens coloured by surprise. Of a very large dataset it reads an even sample, and says so.",
  request: params("ds_3f9k"),
  responses,
});
const ofJob = createRoute({
  method: "get",
  path: "/v1/distillation/jobs/{id}/report",
  tags: ["Distillation"],
  middleware,
  summary: "Report of a distillation job",
  description:
    "The same for the rows of a job, with its configuration, curves, the student's evaluation with intervals beside the " +
    "controls, and lineage. While the job runs it tells what there is so far.",
  request: params("djob_7d1m"),
  responses,
});

export const reportRoutes =
  ({ reports }: { reports: ReportService }): RouteModule =>
  (app) => {
    app.openapi(ofDataset, async (c) => {
      const { id } = c.req.valid("param");
      return page(c, id, await reports.dataset(id, clientSignal(c)));
    });
    app.openapi(ofJob, async (c) => {
      const { id } = c.req.valid("param");
      return page(c, id, await reports.job(id, clientSignal(c)));
    });
  };

/** Shown where it is opened, and named where it is saved; `id` is one that exists, so it needs no quoting. */
function page(c: ApiContext, id: string, body: string) {
  return c.html(body, 200, {
    "content-security-policy": `${POLICY}; frame-ancestors 'none'`,
    "content-disposition": `inline; filename="${id}.report.html"`,
    "cache-control": "no-store",
  }) as never;
}
