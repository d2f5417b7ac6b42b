/**
 * A server that answers like vLLM 0.33 at the routes that the engine uses, over real HTTP, with a toy model behind it. It counts
 * what it is asked, sees who leaves, and misbehaves when told to.
 */
import { once } from "node:events";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { answerCompletion, type CompletionBody, VERSION } from "./fake-completions.ts";
import { answerFault, errorBody, type Fault, sendJson } from "./fake-faults.ts";
import { TOY, type Toy, tokenize } from "./toy-model.ts";

/** What a server cannot do, that vLLM 0.33 can. `n_ignored`: it answers one choice whatever was asked for. */
export type Feature =
  | "token_ids"
  | "named_tokens"
  | "n"
  | "n_ignored"
  | "prompt_logprobs"
  | "stop"
  | "stop_token_ids"
  | "max_model_len"
  | "tokenize"
  | "version";

/** May be changed while the server runs. */
export interface FakeSettings {
  name: string;
  toy: Toy;
  maxModelLen: number;
  /** vLLM's --max-logprobs; −1: as many as the vocabulary has. */
  maxLogprobs: number;
  logprobsMode: "raw_logprobs" | "processed_logprobs";
  /** Whether adapters can be loaded at run time (VLLM_ALLOW_RUNTIME_LORA_UPDATING). */
  lora: boolean;
  /** --enable-prompt-tokens-details. */
  promptDetails: boolean;
  /** Scores at any temperature, from any position, without sampling, as Preceptor does. */
  preceptor: boolean;
  lacks: ReadonlySet<Feature>;
  eosId: number;
  apiKey: string | null;
  version: string;
  fingerprint: string | null;
  tokenMs: number;
}

export interface SeenRequest {
  path: string;
  headers: IncomingHttpHeaders;
  /** `unknown` to the tests: they look at single fields. */
  body: Partial<CompletionBody> & Record<string, unknown>;
  /** Milliseconds, as performance.now(). */
  at: number;
}

export interface Seen {
  requests: SeenRequest[];
  openStreams: number;
  mostOpenStreams: number;
  /** Sequences begun, and tokens drawn. */
  sequences: number;
  tokens: number;
  /** Streams that their client left before the end. */
  disconnects: number;
}

export interface FakeVllm {
  /** The base URL. */
  readonly url: string;
  /** `host:port` */
  readonly where: string;
  readonly settings: FakeSettings;
  readonly seen: Seen;
  /** Adapters: name → path. */
  readonly adapters: ReadonlyMap<string, string>;
  completions(): SeenRequest[];
  /** So many times, at these routes: completions unless told otherwise. The fault told last comes first. */
  misbehave(fault: Fault, at?: { times?: number; path?: RegExp }): void;
  behave(): void;
  /** Refuses connections, and breaks those that are open. */
  kill(): Promise<void>;
  /** Answers again at the same address, without the adapters. */
  revive(): Promise<void>;
  forgetAdapters(): void;
  close(): Promise<void>;
}

const DEFAULTS: FakeSettings = {
  name: "toy",
  toy: TOY,
  maxModelLen: 256,
  maxLogprobs: 20,
  logprobsMode: "raw_logprobs",
  lora: false,
  promptDetails: true,
  preceptor: false,
  lacks: new Set(),
  eosId: 2,
  apiKey: null,
  version: VERSION,
  fingerprint: `vllm-${VERSION}-0123abcd`,
  tokenMs: 0,
};

export type FakeOptions = Partial<Omit<FakeSettings, "toy" | "lacks">> & {
  toy?: Partial<Toy>;
  lacks?: readonly Feature[];
};

export async function startFake(options: FakeOptions = {}): Promise<FakeVllm> {
  const settings: FakeSettings = {
    ...DEFAULTS,
    ...options,
    toy: { ...TOY, ...options.toy },
    lacks: new Set(options.lacks ?? []),
  };
  const seen: Seen = { requests: [], openStreams: 0, mostOpenStreams: 0, sequences: 0, tokens: 0, disconnects: 0 };
  const adapters = new Map<string, string>();
  const prompts: number[][] = [];
  const faults: { fault: Fault; times: number; path: RegExp }[] = [];

  function takeFault(path: string): Fault | null {
    const found = faults.find((each) => each.path.test(path));
    if (!found) return null;
    if (--found.times <= 0) faults.splice(faults.indexOf(found), 1);
    return found.fault;
  }

  /** Blocks of sixteen tokens that an earlier prompt had in common with this one. */
  function cachedTokensOf(prompt: number[]): number {
    const common = (other: number[]): number => {
      const at = prompt.findIndex((id, i) => other[i] !== id);
      return Math.min(at < 0 ? prompt.length : at, prompt.length - 1);
    };
    const longest = Math.max(0, ...prompts.map(common));
    prompts.push(prompt);
    return longest - (longest % 16);
  }

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? "/", "http://fake").pathname;
    const text = await bodyOf(request);
    const body = (text === "" ? {} : JSON.parse(text)) as SeenRequest["body"];
    seen.requests.push({ path, headers: request.headers, body, at: performance.now() });
    if (settings.apiKey !== null && path.startsWith("/v1") && !isAuthorized(request, settings.apiKey)) {
      sendJson(response, 401, { error: "Unauthorized" });
      return;
    }
    const fault = takeFault(path);
    if (fault && answerFault(fault, response)) return;
    switch (`${request.method} ${path}`) {
      case "GET /health":
        response.writeHead(200).end();
        return;
      case "GET /version":
        if (settings.lacks.has("version")) break;
        sendJson(response, 200, { version: settings.version });
        return;
      case "GET /v1/models":
        sendJson(response, 200, { object: "list", data: cards(settings, adapters) });
        return;
      case "POST /tokenize": {
        if (settings.lacks.has("tokenize")) break;
        const tokens = tokenize(String(body.prompt));
        sendJson(response, 200, {
          count: tokens.length,
          max_model_len: settings.maxModelLen,
          tokens,
          token_strs: null,
        });
        return;
      }
      case "POST /v1/completions": {
        const adapter = adapters.get(body.model ?? "");
        if (body.model !== settings.name && adapter === undefined) {
          const message = `The model \`${body.model}\` does not exist. Valid aliases: ${settings.name}.`;
          sendJson(response, 404, errorBody(message, 404, "NotFoundError", "model"));
          return;
        }
        const toy = { ...settings.toy, adapter: adapter ?? null };
        const completion = body as CompletionBody;
        const common = cachedTokensOf(completion.prompt);
        // vLLM computes a prompt anew whose log-probs are asked for.
        const cachedTokens = completion.prompt_logprobs === undefined || settings.preceptor ? common : 0;
        await answerCompletion({ body: completion, toy, settings, seen, fault, response, cachedTokens });
        return;
      }
      case "POST /v1/load_lora_adapter":
      case "POST /v1/unload_lora_adapter":
        if (!settings.lora) break;
        (path.includes("unload") ? unload : load)(body, response);
        return;
    }
    sendJson(response, 404, errorBody("Not Found", 404, "Not Found"));
  }

  function load(body: SeenRequest["body"], response: ServerResponse): void {
    const { lora_name: name, lora_path: path } = body as { lora_name?: string; lora_path?: string };
    if (!name || !path) {
      const missing = ["lora_name", "lora_path"].map(
        (field) =>
          `  {'type': 'missing', 'loc': ('body', '${field}'), 'msg': 'Field required', 'input': '<dict of 0 items>'}`,
      );
      sendJson(
        response,
        400,
        errorBody(`2 validation errors:\n${missing.join("\n")}`, 400, "Bad Request", "body.lora_name"),
      );
    } else if (adapters.has(name)) {
      const message = `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`;
      sendJson(response, 400, errorBody(message, 400, "InvalidUserInput"));
    } else {
      adapters.set(name, path);
      response.writeHead(200).end(`Success: LoRA adapter '${name}' added successfully.`);
    }
  }

  function unload({ lora_name: name }: Record<string, unknown>, response: ServerResponse): void {
    if (adapters.delete(String(name))) {
      response.writeHead(200).end(`Success: LoRA adapter '${name}' removed successfully.`);
      return;
    }
    sendJson(response, 404, errorBody(`The lora adapter '${name}' cannot be found.`, 404, "NotFoundError"));
  }

  const listen = async (port: number): Promise<Server> => {
    const server = createServer((request, response) => {
      route(request, response).catch((error: unknown) => {
        if (!response.headersSent) sendJson(response, 500, errorBody(String(error), 500, "InternalServerError"));
      });
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return server;
  };

  let server: Server | null = await listen(0);
  const { port } = server.address() as AddressInfo;

  async function kill(): Promise<void> {
    const dying = server;
    server = null;
    if (!dying) return;
    const closed = once(dying, "close");
    dying.close();
    dying.closeAllConnections();
    await closed;
  }

  return {
    url: `http://127.0.0.1:${port}/v1`,
    where: `127.0.0.1:${port}`,
    settings,
    seen,
    adapters,
    completions: () => seen.requests.filter(({ path }) => path === "/v1/completions"),
    misbehave(fault, { times = Number.POSITIVE_INFINITY, path = /\/completions$/ } = {}) {
      faults.unshift({ fault, times, path });
    },
    behave() {
      faults.length = 0;
    },
    kill,
    async revive() {
      adapters.clear();
      server ??= await listen(port);
    },
    forgetAdapters: () => adapters.clear(),
    close: kill,
  };
}

function cards({ name, maxModelLen, lacks }: FakeSettings, adapters: ReadonlyMap<string, string>): object[] {
  const created = Math.floor(Date.now() / 1000);
  const card = (id: string, root: string, parent: string | null, length: number | null): object => ({
    id,
    object: "model",
    created,
    owned_by: "vllm",
    root,
    parent,
    max_model_len: length,
    permission: [],
  });
  const length = lacks.has("max_model_len") ? null : maxModelLen;
  return [
    card(name, `/models/${name}`, null, length),
    ...[...adapters].map(([id, path]) => card(id, path, name, null)),
  ];
}

function isAuthorized({ headers }: IncomingMessage, key: string): boolean {
  return headers.authorization === `Bearer ${key}`;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
