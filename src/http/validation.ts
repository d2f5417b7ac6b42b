/** Turns what zod found into our one error: `param` is a path, an unknown field is named with its likely meaning. */
import { z } from "zod";
import { fail, type PreceptorError } from "../errors.ts";
import { suggest } from "../suggest.ts";

type Issue = z.core.$ZodIssue;

/** How many problems one message lists; more would not be read. */
const MAX_LISTED = 5;
/** A path or key that the caller made up may be of any length; what we echo is not. */
const MAX_ECHO = 200;

/**
 * zod's messages, improved where a caller needs more: which fields exist, and that a field is missing. Installed by
 * createApp, because the schema (and with it the known fields) is only at hand while zod builds the message.
 */
export function installMessages(): void {
  z.config({
    customError(issue) {
      if (issue.code === "invalid_type" && issue.input === undefined) return `is required (${issue.expected})`;
      if (issue.code === "invalid_value" && issue.input === undefined) return `is required (${values(issue.values)})`;
      // Only a query can bring it: JSON knows no NaN.
      if (issue.code === "invalid_type" && Number.isNaN(issue.input)) return "expected a number";
      if (issue.code === "unrecognized_keys") return unknownFields(issue.keys, fieldsOf(issue.inst));
      return undefined;
    },
  });
}

/** The first problem decides `param` and `code`; unknown fields go first, since they explain missing ones. */
export function validationError(error: z.core.$ZodError): PreceptorError {
  const issues = flatten(error.issues, []);
  issues.sort((a, b) => rank(a) - rank(b));
  const first = issues[0];
  if (!first) return fail("invalid_value", "The request is not valid.");
  const told = issues.filter(firstOfItsPath);
  const listed = told.slice(0, MAX_LISTED).map(describe);
  const more = told.length > MAX_LISTED ? `; and ${told.length - MAX_LISTED} more` : "";
  const param = pathOf(first);
  return fail(first.code === "unrecognized_keys" ? "unknown_parameter" : "invalid_value", listed.join("; ") + more, {
    param: param === "" ? undefined : param,
  });
}

/** zod judges a value of the wrong type by its other rules too; one fault of a field is enough. */
function firstOfItsPath(issue: Issue, at: number, issues: readonly Issue[]): boolean {
  const path = pathOf(issue);
  return issues.findIndex((other) => pathOf(other) === path) === at;
}

function rank(issue: Issue): number {
  return issue.code === "unrecognized_keys" ? 0 : 1;
}

function describe(issue: Issue): string {
  const message = issue.message.replace(/^Invalid input: /, "");
  if (issue.code === "unrecognized_keys")
    return issue.path.length === 0 ? message : `${dotted(issue.path)}: ${message}`;
  const path = pathOf(issue);
  return path === "" ? message : `${path}${message.startsWith("is required") ? " " : ": "}${message}`;
}

function pathOf(issue: Issue): string {
  return dotted(issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0] ?? ""] : issue.path);
}

function dotted(path: readonly PropertyKey[]): string {
  return shorten(path.map(String).join("."));
}

function shorten(text: string): string {
  return text.length > MAX_ECHO ? `${text.slice(0, MAX_ECHO)}…` : text;
}

/** Paths inside a union are relative to it, and one branch is usually the one that was meant. */
function flatten(issues: readonly Issue[], prefix: readonly PropertyKey[]): Issue[] {
  return issues.flatMap((issue): Issue[] => {
    const path = [...prefix, ...issue.path];
    if (issue.code === "invalid_union" && issue.errors.length > 0) {
      const meant = meantBranch(issue.errors);
      if (meant) return flatten(meant, path);
      const messages = issue.errors.map((branch) => (branch[0] ? describe(branch[0]) : ""));
      return [{ ...issue, path, message: [...new Set(messages)].filter(Boolean).join(", or ") }];
    }
    return [{ ...issue, path }];
  });
}

/**
 * The branch the caller meant: the one whose outermost type was right. Of two lists that differ in their elements
 * (strings, token ids) the one that fits further; none when that does not single one out.
 */
function meantBranch(branches: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  const atRoot = (issues: readonly Issue[]): Issue[] => issues.filter((issue) => issue.path.length === 0);
  const entered = branches.filter((issues) => !atRoot(issues).some((i) => WRONG_TYPE.has(i.code)));
  if (entered.length === 0)
    return only(branches.filter((issues) => atRoot(issues).every((i) => i.code !== "invalid_type")));
  if (entered.length === 1) return entered[0];
  const reach = (issues: readonly Issue[]): number => Number(issues[0]?.path[0] ?? Number.NaN);
  const [furthest, next] = entered.toSorted((a, b) => reach(b) - reach(a));
  return furthest && next && reach(furthest) > reach(next) ? furthest : undefined;
}

/** An enum or literal refuses a value without saying whether its type was right. */
const WRONG_TYPE: ReadonlySet<Issue["code"]> = new Set(["invalid_type", "invalid_value", "invalid_union"]);

function only<T>(list: readonly T[]): T | undefined {
  return list.length === 1 ? list[0] : undefined;
}

function values(list: readonly z.core.util.Primitive[]): string {
  return list.map((value) => JSON.stringify(value)).join(", ");
}

function fieldsOf(schema: unknown): readonly string[] {
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

function unknownFields(keys: readonly string[], known: readonly string[]): string {
  const [key = ""] = keys;
  const guess = suggest(key, known);
  const rest = keys.length > 1 ? ` (and ${keys.length - 1} more)` : "";
  if (guess) return `Unknown parameter "${shorten(key)}"${rest}. Did you mean "${guess}"?`;
  const list = known.length > 0 ? ` Known here: ${known.join(", ")}.` : "";
  return `Unknown parameter "${shorten(key)}"${rest}.${list}`;
}
