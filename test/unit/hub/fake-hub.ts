/** A small Hugging Face hub on a local port, with faults on demand. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface FakeFile {
  contents: Buffer;
  /** Large files are redirected to the CDN and have SHA-256 etags. */
  lfs?: boolean;
}

export interface FakeHub {
  kind: "models" | "datasets";
  endpoint: string;
  cdn: string;
  commit: string;
  files: Map<string, FakeFile>;
  /** `GET /path`, with `range` and whether a token came along. */
  requests: { host: "hub" | "cdn"; method: string; url: string; range?: string; authorization?: string }[];
  /** Answers instead of the hub; return false to let it answer. */
  intercept: (request: IncomingMessage, response: ServerResponse, host: "hub" | "cdn") => boolean;
  close(): Promise<void>;
}

export const etagOf = (file: FakeFile): string =>
  file.lfs
    ? createHash("sha256").update(file.contents).digest("hex")
    : createHash("sha1").update(`blob ${file.contents.length}\0`).update(file.contents).digest("hex");

/** `org/model`, of either kind. */
export async function startFakeHub(
  files: Record<string, FakeFile>,
  { kind = "models" }: { kind?: "models" | "datasets" } = {},
): Promise<FakeHub> {
  const hub: FakeHub = {
    kind,
    endpoint: "",
    cdn: "",
    commit: "0123456789abcdef0123456789abcdef01234567",
    files: new Map(Object.entries(files)),
    requests: [],
    intercept: () => false,
    close: async () => {
      for (const server of servers) server.closeAllConnections();
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
  const servers = (["hub", "cdn"] as const).map((host) =>
    createServer((request, response) => {
      const { range, authorization } = request.headers;
      hub.requests.push({
        host,
        method: request.method ?? "",
        url: request.url ?? "",
        ...(range ? { range } : {}),
        ...(authorization ? { authorization } : {}),
      });
      if (hub.intercept(request, response, host)) return;
      if (host === "hub") answerHub(hub, request, response);
      else sendFile(hub, decodeURIComponent((request.url ?? "").slice(1)), request, response);
    }),
  );
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve) =>
          server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port)),
        ),
    ),
  );
  hub.endpoint = `http://127.0.0.1:${ports[0]}`;
  hub.cdn = `http://localhost:${ports[1]}`;
  return hub;
}

function answerHub(hub: FakeHub, request: IncomingMessage, response: ServerResponse): void {
  const path = decodeURIComponent(new URL(request.url ?? "/", hub.endpoint).pathname);
  const listing = new RegExp(`^/api/${hub.kind}/org/model/revision/(.+)$`).exec(path);
  if (listing) {
    if (listing[1] !== "main" && listing[1] !== hub.commit) {
      response.writeHead(404, { "x-error-code": "RevisionNotFound" }).end();
      return;
    }
    const siblings = [...hub.files.keys()].map((rfilename) => ({ rfilename }));
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ id: "org/model", sha: hub.commit, siblings }));
    return;
  }
  const [, name] =
    new RegExp(`^${hub.kind === "models" ? "" : "/datasets"}/org/model/resolve/(?:main|${hub.commit})/(.+)$`).exec(
      path,
    ) ?? [];
  const file = name === undefined ? undefined : hub.files.get(name);
  if (name === undefined || !file) {
    response.writeHead(404, { "x-error-code": "RepoNotFound" }).end();
    return;
  }
  if (!file.lfs) {
    sendFile(hub, name, request, response);
    return;
  }
  response.writeHead(302, {
    location: `${hub.cdn}/${name}`,
    "x-linked-etag": `"${etagOf(file)}"`,
    "x-linked-size": String(file.contents.length),
    "x-repo-commit": hub.commit,
    etag: '"of-the-redirect"',
  });
  response.end();
}

export function sendFile(hub: FakeHub, name: string, request: IncomingMessage, response: ServerResponse): void {
  const file = hub.files.get(name);
  if (!file) {
    response.writeHead(404).end();
    return;
  }
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  if (from > 0 && from >= file.contents.length) {
    response.writeHead(416).end();
    return;
  }
  const body = file.contents.subarray(from);
  response.writeHead(from > 0 ? 206 : 200, {
    "content-length": body.length,
    "x-repo-commit": hub.commit,
    etag: `"${etagOf(file)}"`,
    ...(from > 0 ? { "content-range": `bytes ${from}-${file.contents.length - 1}/${file.contents.length}` } : {}),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}
