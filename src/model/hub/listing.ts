/** What a repository on the hub consists of, and what every question about one needs. */
import { fail, PreceptorError } from "../../errors.ts";
import { hubRequest, withRetries } from "./request.ts";
import { refusal } from "./status.ts";
import type { HubDeps, RepoKind } from "./types.ts";

/** Repositories have some dozens of files; a listing beyond this is not a hub's. */
const MAX_LISTING_BYTES = 16 * 1024 * 1024;

/** `org/name`, or the one word of the oldest repositories. `param`: of the request, for the error. */
export const checkRepo = (repo: string, param: string): string =>
  checkName(repo, /^[\w.-]+(\/[\w.-]+)?$/, "hf:org/name", param);
export const checkRevision = (revision: string, param: string): string =>
  checkName(revision, /^[\w.-]+(\/[\w.-]+)*$/, "a branch, a tag or a commit", param);

function checkName(name: string, shape: RegExp, expected: string, param: string): string {
  if (name.length <= 200 && shape.test(name) && !name.split("/").some((part) => /^\.+$/.test(part))) return name;
  throw fail("invalid_value", `${JSON.stringify(name.slice(0, 80))} is not ${expected}`, { param });
}

/** A cache that cannot be written is the user's to mend, not a fault of ours. */
export function explainDisk(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (error instanceof PreceptorError || typeof code !== "string") return error;
  const problem = code === "ENOSPC" || code === "EDQUOT" ? "is full" : `cannot be written (${code})`;
  return fail("hub_error", `the hub cache ${problem}; mend this or set HF_HOME to another place`, {
    cause: error,
  });
}

/** The hub cannot be asked at all, so that the cache may answer. */
export class Unreachable extends Error {
  readonly reason: PreceptorError;
  constructor(reason: PreceptorError) {
    super(reason.message, { cause: reason });
    this.reason = reason;
  }
}

/** The commit a revision stands for and the names of its files. */
export async function list(
  kind: RepoKind,
  repo: string,
  revision: string,
  deps: HubDeps,
): Promise<{ commit: string; names: string[] }> {
  const url = `${deps.endpoint}/api/${kind}/${repo}/revision/${encodeURIComponent(revision)}`;
  const response = await withRetries(repo, deps, async () => (await hubRequest(url, deps)).response).catch(
    (error: unknown) => {
      if (error instanceof PreceptorError && error.cause instanceof Error && error.cause.name === "TransientError") {
        throw new Unreachable(error);
      }
      throw error;
    },
  );
  if (!response.ok) {
    const revisionMissing = response.headers.get("x-error-code") === "RevisionNotFound";
    throw refusal(
      response,
      kind === "models" ? repo : `${kind}/${repo}`,
      revisionMissing ? `revision ${revision} of ${repo}` : `${repo}@${revision}`,
      deps,
    );
  }
  const answer = await readListing(response, repo, deps);
  const names = (answer.siblings ?? []).map((sibling) => sibling?.rfilename).filter((name) => typeof name === "string");
  if (typeof answer.sha !== "string" || names.length === 0) {
    throw fail(
      "hub_error",
      `${repo}: the hub's listing names no commit or no files; is ${deps.endpoint} a Hugging Face hub?`,
    );
  }
  return { commit: answer.sha, names };
}

interface Listing {
  sha?: unknown;
  siblings?: ({ rfilename?: unknown } | null)[];
}

async function readListing(response: Response, repo: string, deps: HubDeps): Promise<Listing> {
  try {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body ?? []) {
      bytes += chunk.length;
      if (bytes > MAX_LISTING_BYTES) throw new Error("the listing is too long");
      chunks.push(chunk);
    }
    const value: unknown = JSON.parse(Buffer.concat(chunks).toString("utf8"));
    if (typeof value === "object" && value !== null && Array.isArray((value as Listing).siblings))
      return value as Listing;
    throw new Error("the listing has no files");
  } catch (cause) {
    throw fail("hub_error", `${repo}: the hub's listing cannot be read; is ${deps.endpoint} a Hugging Face hub?`, {
      cause,
    });
  }
}
