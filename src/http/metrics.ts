/** Prometheus metrics: HTTP here, gauges and counters of other parts through the same registry. */
import { createRoute, z } from "@hono/zod-openapi";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { RouteModule } from "./context.ts";

export type Labelled<L extends string> = readonly { labels: Record<L, string>; value: number }[];

export interface Metrics {
  readonly registry: Registry;
  observeRequest(request: { method: string; route: string; status: number; seconds: number }): void;
  /** A gauge that is read when /metrics is: `metrics.gauge("preceptor_models_loaded", "Models in memory", () => …)`. */
  gauge(name: string, help: string, read: () => number | Promise<number>): void;
  /** The same with labels: one value for each set of them, read together. */
  gauges<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    read: () => Labelled<L> | Promise<Labelled<L>>,
  ): void;
  /** A counter that is read when /metrics is; what it reads must never fall. */
  total(name: string, help: string, read: () => number): void;
  /** A counter to keep and `inc`. */
  counter<L extends string = never>(name: string, help: string, labelNames?: readonly L[]): Counter<L>;
}

/** From a probe (1 ms) to a long generation (10 min). */
const SECONDS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30, 120, 600];

/** `process: true` adds Node's own figures (CPU, memory, event-loop lag); once per process is enough. */
export function createMetrics(options: { process?: boolean } = {}): Metrics {
  const registry = new Registry();
  const registers = [registry];
  if (options.process) collectDefaultMetrics({ register: registry });
  const requests = new Counter({
    name: "preceptor_http_requests_total",
    help: "HTTP requests answered",
    labelNames: ["method", "route", "status"] as const,
    registers,
  });
  const duration = new Histogram({
    name: "preceptor_http_request_duration_seconds",
    help: "Time from the request to the end of its response, streams included",
    labelNames: ["method", "route"] as const,
    buckets: SECONDS,
    registers,
  });
  return {
    registry,
    observeRequest({ method, route, status, seconds }) {
      requests.inc({ method, route, status });
      duration.observe({ method, route }, seconds);
    },
    gauge(name, help, read) {
      new Gauge({
        name,
        help,
        registers,
        async collect() {
          this.set(await read());
        },
      });
    },
    gauges(name, help, labelNames, read) {
      new Gauge({
        name,
        help,
        labelNames,
        registers,
        async collect() {
          const values = await read();
          this.reset();
          // Several values of the same labels count together.
          for (const { labels, value } of values) this.inc(labels, value);
        },
      });
    },
    total(name, help, read) {
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(read());
        },
      });
    },
    counter: (name, help, labelNames = []) => new Counter({ name, help, labelNames, registers }),
  };
}

const metricsRoute = createRoute({
  method: "get",
  path: "/metrics",
  tags: ["Server"],
  summary: "Prometheus metrics",
  responses: { 200: { description: "Text exposition format", content: { "text/plain": { schema: z.string() } } } },
});

export function metricsRoutes(metrics: Metrics): RouteModule {
  return (app) => {
    app.openapi(metricsRoute, async (c) =>
      c.text(await metrics.registry.metrics(), 200, { "content-type": metrics.registry.contentType }),
    );
  };
}
