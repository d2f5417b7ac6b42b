import { fail } from "../errors.ts";

const DEFAULT_PORT = 5432;

export interface PostgresHost {
  name: string;
  port: number;
  /** Of a Unix socket, in place of name and port. */
  path: string | undefined;
}

/** A DATABASE_URL taken apart as far as the driver needs help: it knows neither IPv6 literals nor `?host=`. */
export interface PostgresAddress {
  /** What the driver reads user, password, database and options such as `sslmode` from. */
  url: string;
  /** At least one. */
  hosts: PostgresHost[];
  /** `host:port/database`, for messages: never user or password. */
  label: string;
}

/**
 * `postgres://user:password@host[:port][,host[:port]…]/database?options`, as libpq reads it; a host that begins with a
 * slash is the directory of a Unix socket.
 */
export function parsePostgresAddress(databaseUrl: string): PostgresAddress {
  // A list of hosts is no URL; its first one stands in while the rest is checked.
  const [, scheme = "", user = "", list = "", rest = ""] =
    /^(postgres(?:ql)?:\/\/)((?:[^/?#]*@)?)([^/?#@]*)(.*)$/s.exec(databaseUrl) ?? [];
  try {
    const url = new URL(scheme + user + (list.split(",")[0] || "localhost") + rest);
    for (const part of [url.username, url.password, url.pathname]) decodeURIComponent(part);
    const given = url.searchParams.get("host") ?? "";
    const port = Number(url.searchParams.get("port") ?? DEFAULT_PORT);
    url.searchParams.delete("host");
    url.searchParams.delete("port");
    const hosts = list.split(",").map((host) => {
      const part = new URL(scheme + host);
      return toHost(given || decodeURIComponent(part.hostname), part.port ? Number(part.port) : port);
    });
    return { url: url.href, hosts, label: (given || decodeURIComponent(list) || "localhost") + url.pathname };
  } catch {
    throw fail(
      "invalid_value",
      "DATABASE_URL is not a PostgreSQL address; it looks like postgres://user:password@host:5432/database, with special characters of the password percent-encoded",
      { param: "DATABASE_URL" },
    );
  }
}

function toHost(name: string, port: number): PostgresHost {
  const path = name.startsWith("/") ? `${name}/.s.PGSQL.${port}` : undefined;
  return { name: name.replace(/^\[|\]$/g, "") || "localhost", port, path };
}
