import { expect, test } from "vitest";
import { isAllowedHost } from "../../src/allowed-hosts.ts";

const decide = (url: string, ...entries: string[]) => isAllowedHost(new URL(url), entries);

test.each([
  ["http://gpu1/", "gpu1"],
  ["http://gpu1:8000/v1", "gpu1"],
  ["http://gpu1:8000/v1", "gpu1:8000"],
  ["http://gpu1/", "gpu1:80"],
  ["https://gpu1/", "gpu1:443"],
  ["https://gpu1:443/", "gpu1:443"],
  ["https://gpu1/", "gpu1:0443"],
  ["http://GPU1.Example.ORG/", "gpu1.example.org"],
  ["http://gpu1.example.org/", "GPU1.EXAMPLE.ORG:80"],
  ["https://a.example.org/", "*.example.org"],
  ["https://a.b.example.org:8443/", "*.Example.org:8443"],
  ["http://[::1]:8000/", "[::1]"],
  ["http://[::1]:8000/", "[::1]:8000"],
  ["http://[0:0:0:0:0:0:0:1]/", "[::1]"],
  ["http://[fd00::a]/", "[FD00:0::A]:80"],
  ["http://example.org./", "example.org"],
  ["http://example.org/", "example.org."],
  ["http://a.example.org./", "*.example.org"],
  ["http://2130706433/", "127.0.0.1"],
  ["http://0x7f.1:9/", "127.0.0.1:9"],
  ["http://127.0.0.1/", "127.1"],
  ["http://b%C3%BCcher.example/", "bücher.example"],
  ["http://under_score/", "under_score"],
  ["http://user@allowed.example/", "allowed.example"],
  ["http://allowed.example\\@evil/", "allowed.example"],
])("%s is allowed by %s", (url, entry) => {
  expect(decide(url, entry)).toBe(true);
  expect(decide(url, "other", entry)).toBe(true);
});

test.each([
  ["http://gpu1:8000/", "gpu1:80"],
  ["http://gpu1/", "gpu1:8000"],
  ["http://gpu1/", "gpu1:443"],
  ["https://gpu1/", "gpu1:80"],
  ["ftp://gpu1/", "gpu1:80"],
  ["http://gpu12/", "gpu1"],
  ["http://allowed.example@evil/", "allowed.example"],
  ["http://allowed.example:80@evil/", "allowed.example:80"],
  ["http://evil/allowed.example", "allowed.example"],
  ["http://evil#@allowed.example", "allowed.example"],
  ["http://evil?allowed.example", "allowed.example"],
  ["http://allowed.example.evil/", "allowed.example"],
  ["http://allowed.example.evil/", "*.allowed.example"],
  ["http://evil-allowed.example/", "*.allowed.example"],
  ["http://evilallowed.example/", "allowed.example"],
  ["http://example.org/", "*.example.org"],
  ["http://.example.org/", "*.example.org"],
  ["http://example.org./", "*.example.org"],
  ["http://example.org../", "example.org"],
  ["http://a.example.org:81/", "*.example.org:80"],
  ["http://127.0.0.1/", "*.0.0.1"],
  ["http://127.0.0.1/", "*.1"],
  ["http://2130706433/", "127.0.0.2"],
  ["http://[::1]/", "[::2]"],
  ["http://[::1]:81/", "[::1]:80"],
  ["http://[::ffff:127.0.0.1]/", "127.0.0.1"],
  ["http://localhost/", "127.0.0.1"],
])("%s is not allowed by %s", (url, entry) => {
  expect(decide(url, entry)).toBe(false);
  expect(decide(url, "other", entry)).toBe(false);
});

test.each([
  "",
  "*",
  "*.",
  "*evil",
  "e*",
  "http://evil",
  "evil/",
  "evil:",
  "evil:x",
  "evil:800000",
  "user@evil",
  "%65vil",
  "[evil]",
  "::1",
  "[]",
  ".",
  "..",
  "*..",
  ":80",
])("what is no entry allows nothing: %j", (entry) => {
  expect(decide("http://evil/", entry)).toBe(false);
  expect(decide("http://[::1]/", entry)).toBe(false);
  expect(decide("http://evil../", entry)).toBe(false);
  expect(decide("file:///etc/passwd", entry)).toBe(false);
});

test("an empty list allows nothing", () => {
  expect(decide("http://localhost/")).toBe(false);
});
