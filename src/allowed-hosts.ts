/** The entries of PRECEPTOR_ALLOWED_HOSTS, compared with the addresses that anything here wants to reach. */

/** Groups: `*.` of a wildcard, the name or the IPv6 address in brackets, the port. */
const ENTRY = /^(\*\.)?(\[[\da-f:.]+\]|[^\s:/?#@%*[\]\\]+)(?::(\d{1,5}))?$/i;

const DEFAULT_PORTS: Readonly<Record<string, number>> = { "http:": 80, "https:": 443 };

/**
 * Whether the host of a URL is on the list. An entry is `name`, `*.suffix` (any name below the suffix, not the suffix
 * itself) or an IPv6 address in brackets; with `:port` it stands for that port only. What is no such entry matches
 * nothing, and so does an empty list. Only the host is judged: the scheme and a user name are the caller's to refuse.
 */
export function isAllowedHost(url: URL, allowed: readonly string[]): boolean {
  const host = withoutRootDot(url.hostname.toLowerCase());
  const port = url.port === "" ? DEFAULT_PORTS[url.protocol] : Number(url.port);
  return allowed.some((entry) => matches(entry, host, port));
}

function matches(entry: string, host: string, port: number | undefined): boolean {
  const [, wildcard, written, entryPort] = ENTRY.exec(entry) ?? [];
  if (written === undefined || (entryPort !== undefined && Number(entryPort) !== port)) return false;
  // The URL went through the same parser: upper case, international names and other spellings of an address are equal.
  const parsed = `http://${written}`;
  if (!URL.canParse(parsed)) return false;
  const name = withoutRootDot(new URL(parsed).hostname);
  if (name === "") return false;
  if (wildcard === undefined) return host === name;
  return host.length > name.length + 1 && host.endsWith(`.${name}`);
}

/** `example.org.` is `example.org`, written so that no search domain is tried. */
function withoutRootDot(host: string): string {
  return host.endsWith(".") ? host.slice(0, -1) : host;
}
