import { expect, test } from "vitest";
import { parsePostgresAddress } from "../../src/db/postgres-address.ts";

const at = (name: string, port = 5432, path: string | undefined = undefined) => ({ name, port, path });

test.each([
  ["postgres://me:p%40w@db.example:6432/app?sslmode=require", [at("db.example", 6432)], "db.example:6432/app"],
  ["postgresql://db/app", [at("db")], "db/app"],
  ["postgres:///app", [at("localhost")], "localhost/app"],
  ["postgres://me@[::1]:5433/app", [at("::1", 5433)], "[::1]:5433/app"],
  ["postgres://me:pw@a:1,b,c:3/app", [at("a", 1), at("b"), at("c", 3)], "a:1,b,c:3/app"],
  ["postgres:///app?host=/run/pg&port=5499", [at("/run/pg", 5499, "/run/pg/.s.PGSQL.5499")], "/run/pg/app"],
  ["postgres://me@%2Frun%2Fpg/app", [at("/run/pg", 5432, "/run/pg/.s.PGSQL.5432")], "/run/pg/app"],
  ["postgres:///app?host=db.example", [at("db.example")], "db.example/app"],
])("%s", (url, hosts, label) => {
  expect(parsePostgresAddress(url)).toMatchObject({ hosts, label });
});

test("what the driver does not know is kept from it, what it knows is not", () => {
  const { url } = parsePostgresAddress("postgres://me:p%40w@/app?host=/run/pg&port=1&sslmode=require");
  expect(new URL(url).searchParams.toString()).toBe("sslmode=require");
  expect(new URL(url).password).toBe("p%40w");
});

test.each([
  "",
  "hunter2",
  "mysql://me:hunter2@host/db",
  "postgres://me:hunter2/x@host/db",
  "postgres://me:%zzhunter2@host/db",
  "postgres://me:hunter2@host:99999/db",
])("%j is refused without repeating it", (url) => {
  let message = "";
  try {
    parsePostgresAddress(url);
  } catch (error) {
    message = String(error);
    expect(error).toMatchObject({ code: "invalid_value", param: "DATABASE_URL" });
  }
  expect(message).toContain("postgres://user:password@host");
  expect(message).not.toContain("hunter2");
});
