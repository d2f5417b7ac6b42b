import { isAllowedHost } from "../../allowed-hosts.ts";
import { allSettledOrThrow } from "../../concurrency.ts";
import { fail, type PreceptorError } from "../../errors.ts";
import type { RemoteEngine, RemoteModel, RemoteOptions } from "../engine.ts";
import { createRemoteAdapters } from "./adapters.ts";
import { type Connection, createConnection } from "./connection.ts";
import { asPreceptorError, RemoteFailure } from "./failure.ts";
import { createHealth } from "./health.ts";
import { createHttp, type SendHttp } from "./http.ts";
import { SAME_WEIGHTS_NATS } from "./limits.ts";
import { createRemoteModel } from "./model.ts";
import { createPool } from "./pool.ts";
import { commonProfile, probe } from "./probe.ts";
import type { Remote, RemoteEvent } from "./remote.ts";
import { createReplica } from "./replica.ts";

export interface OpenAiEngineDeps {
  /** `PRECEPTOR_ALLOWED_HOSTS`: addresses that are not on it are never asked anything. */
  allowedHosts: readonly string[];
  observe(event: RemoteEvent): void;
  now: () => number;
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
  const connections = options.baseUrls.map((baseUrl) => createConnection({ send, baseUrl, key: options.key }));
  const replicas = connections.map((connection) => createReplica(connection, now));
  const probed = await allSettledOrThrow(
    connections.map(async (connection) => ({
      where: connection.where,
      profile: await probeReplica(connection, options, signal),
    })),
  );
  const profiles = new Map(replicas.map((replica, i) => [replica, probed[i]!.profile]));
  const adapters = new Map(replicas.map((replica) => [replica, createRemoteAdapters(replica.connection)]));
  const common = () =>
    commonProfile(
      [...profiles].map(
        ([
          {
            connection: { where },
          },
          profile,
        ]) => ({ where, profile }),
      ),
      SAME_WEIGHTS_NATS,
    );
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
  return createRemoteModel(remote, health);
}

async function probeReplica(connection: Connection, options: RemoteOptions, signal: AbortSignal | undefined) {
  try {
    return await probe(connection, options, signal);
  } catch (error) {
    throw error instanceof RemoteFailure ? asPreceptorError(error, connection.where, "model") : error;
  }
}

function notAllowed(url: URL): PreceptorError {
  return fail(
    "model_source_not_allowed",
    `${url.host} is not among PRECEPTOR_ALLOWED_HOSTS; whoever runs this server can add it there`,
    { param: "model" },
  );
}
