import { isAllowedHost } from "../../allowed-hosts.ts";
import { fail, type PreceptorError } from "../../errors.ts";
import type { RemoteEngine, RemoteModel, RemoteOptions } from "../engine.ts";
import { createRemoteAdapters, type HashAdapter } from "./adapters.ts";
import { type Connection, createConnection } from "./connection.ts";
import { asPreceptorError, RemoteFailure } from "./failure.ts";
import { createHealth } from "./health.ts";
import { createHttp, type SendHttp } from "./http.ts";
import { createRemoteModel } from "./model.ts";
import { createPool } from "./pool.ts";
import { commonProfile, probe } from "./probe.ts";
import type { Profile } from "./profile.ts";
import type { Remote, RemoteEvent } from "./remote.ts";
import { createReplica, type Replica } from "./replica.ts";

export interface OpenAiEngineDeps {
  /** `PRECEPTOR_ALLOWED_HOSTS`: addresses that are not on it are never asked anything. */
  allowedHosts: readonly string[];
  observe(event: RemoteEvent): void;
  now: () => number;
  hashAdapter: HashAdapter;
}

/** The engine for servers that speak OpenAI's completions: vLLM, Preceptor itself, llama.cpp. */
export function createOpenAiEngine(deps: OpenAiEngineDeps): RemoteEngine {
  const send = createHttp();
  return {
    name: "openai",
    check(baseUrls) {
      for (const baseUrl of baseUrls) {
        const url = new URL(baseUrl);
        if (!isAllowedHost(url, deps.allowedHosts)) throw notAllowed(url);
      }
    },
    async connect(options, signal) {
      this.check(options.baseUrls);
      return connect({ ...deps, send }, options, signal);
    },
  };
}

async function connect(
  deps: OpenAiEngineDeps & { send: SendHttp },
  options: RemoteOptions,
  signal?: AbortSignal,
): Promise<RemoteModel> {
  const { now, send } = deps;
  const { baseUrls: pool, key } = options;
  const connections = pool.map((baseUrl) => createConnection({ send, baseUrl, key, pool }));
  const replicas = connections.map((connection) => createReplica(connection, now));
  const probed = await Promise.allSettled(connections.map((connection) => probe(connection, options, signal)));
  const profiles = new Map<Replica, Profile>();
  const absent: Replica[] = [];
  for (const [i, result] of probed.entries()) {
    if (result.status === "fulfilled") profiles.set(replicas[i]!, result.value);
    else if (mayComeBack(result.reason)) absent.push(replicas[i]!);
    else throw inWords(result.reason, connections[i]!);
  }
  // One of them is enough to begin with; the others are tried again like any that fail later.
  const [first] = absent;
  if (profiles.size === 0 && first) {
    const at = replicas.indexOf(first);
    throw inWords((probed[at] as PromiseRejectedResult).reason, connections[at]!);
  }
  const adapters = new Map(
    replicas.map((replica) => [replica, createRemoteAdapters(replica.connection, deps.hashAdapter)]),
  );
  const common = (): Profile =>
    commonProfile([...profiles].map(([{ connection }, profile]) => ({ where: connection.where, profile })));
  const remote: Remote = {
    options,
    pool: createPool(replicas, now),
    profile: common(),
    adapters: (replica) => adapters.get(replica)!,
    observe: deps.observe,
    opened: (replica) => health.opened(replica),
    fingerprint: (replica, value) => health.fingerprint(replica, value),
    now,
  };
  const changed = (): void => {
    remote.profile = common();
  };
  const health = createHealth({ remote, options, profiles, changed });
  const model = createRemoteModel(remote, health);
  for (const replica of absent) {
    replica.tried(false);
    health.opened(replica);
  }
  return model;
}

function mayComeBack(error: unknown): boolean {
  return (
    error instanceof RemoteFailure && (error.kind === "unreachable" || error.kind === "busy" || error.kind === "failed")
  );
}

function inWords(error: unknown, { where }: Connection): unknown {
  return error instanceof RemoteFailure ? asPreceptorError(error, where, "model") : error;
}

function notAllowed(url: URL): PreceptorError {
  return fail(
    "model_source_not_allowed",
    `${url.host} is not among PRECEPTOR_ALLOWED_HOSTS; whoever runs this server can add it there`,
    { param: "model" },
  );
}
