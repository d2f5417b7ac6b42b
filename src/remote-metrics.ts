import type { Logger } from "pino";
import type { RemoteModel } from "./engine/engine.ts";
import type { RemoteEvent } from "./engine/openai/remote.ts";
import type { Metrics } from "./http/metrics.ts";

/** What happens at remote servers, at `/metrics` by server, and what somebody should know of it in the log. */
export function observeRemotes(
  metrics: Pick<Metrics, "counter">,
  log: Pick<Logger, "info" | "warn">,
): (event: RemoteEvent) => void {
  const replica = ["model", "replica"] as const;
  const requests = metrics.counter(
    "preceptor_remote_requests_total",
    "Requests sent to remote servers, retries included",
    [...replica, "kind"],
  );
  const failures = metrics.counter("preceptor_remote_failures_total", "Requests that failed at a remote server", [
    ...replica,
    "failure",
    "retried",
  ]);
  const resumed = metrics.counter(
    "preceptor_remote_resumed_sequences_total",
    "Sequences that went on at this server after they had begun at another",
    replica,
  );
  const breakers = metrics.counter("preceptor_remote_breaker_total", "Circuit breakers opened and closed", [
    ...replica,
    "to",
  ]);
  const probes = metrics.counter(
    "preceptor_remote_probes_total",
    "Servers looked at anew; changed: no longer what they were",
    [...replica, "changed"],
  );
  return (event) => {
    const labels = { model: event.model, replica: event.where };
    switch (event.type) {
      case "request":
        requests.inc({ ...labels, kind: event.kind });
        break;
      case "failure":
        failures.inc({ ...labels, failure: event.failure, retried: String(event.retried) });
        if (event.failure !== "refused")
          log.warn({ ...labels, reason: event.message, retried: event.retried }, "a remote server failed");
        break;
      case "resumed":
        resumed.inc(labels, event.sequences);
        break;
      case "opened":
        breakers.inc({ ...labels, to: "open" });
        log.warn({ ...labels, reason: event.message }, "a remote server gets no requests for a while");
        break;
      case "closed":
        breakers.inc({ ...labels, to: "closed" });
        log.info(labels, "a remote server gets requests again");
        break;
      case "probed":
        probes.inc({ ...labels, changed: String(event.differs !== null) });
        if (event.differs !== null) log.warn({ ...labels, reason: event.differs }, "a remote server has changed");
        break;
    }
  };
}

const STATES = ["up", "paused", "open"] as const;

/** How busy and how well the remote models are that are connected, read when `/metrics` is. */
export function gaugeRemotes(
  metrics: Pick<Metrics, "gauges">,
  remotes: () => readonly Pick<RemoteModel, "name" | "load" | "replicas">[],
): void {
  const replicas = () =>
    remotes().flatMap(({ name: model, replicas }) =>
      replicas().map(({ where, ...rest }) => ({ model, where, ...rest })),
    );
  metrics.gauges("preceptor_remote_waiting", "Requests waiting here for a remote server", ["model"], () =>
    remotes().map(({ name: model, load }) => ({ labels: { model }, value: load().waiting })),
  );
  metrics.gauges(
    "preceptor_remote_active",
    "Sequences and texts under way at a remote server",
    ["model", "replica"],
    () => replicas().map(({ model, where, active }) => ({ labels: { model, replica: where }, value: active })),
  );
  metrics.gauges(
    "preceptor_remote_replica_state",
    "1 for the state a remote server is in: up, paused (it asked for that), open (its circuit breaker)",
    ["model", "replica", "state"],
    () =>
      replicas().flatMap(({ model, where, state }) =>
        STATES.map((each) => ({ labels: { model, replica: where, state: each }, value: Number(each === state) })),
      ),
  );
}
