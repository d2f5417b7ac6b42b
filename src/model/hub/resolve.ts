import { fail, PreceptorError } from "../../errors.ts";
import { openRepoCache, type RepoCache } from "./cache.ts";
import { downloadFile } from "./download.ts";
import { hubRequest, withRetries } from "./request.ts";
import { selectFiles } from "./select-files.ts";
import { missingFrom } from "./snapshot.ts";
import { refusal } from "./status.ts";
import type { HubDeps, HubFiles, HubReference } from "./types.ts";

/** Repositories have some dozens of files; a listing beyond this is not a hub's. */
const MAX_LISTING_BYTES = 16 * 1024 * 1024;

/** Downloads under way in this process, by cache, revision and kind of files: a second caller waits for the first. */
const underWay = new Map<string, Promise<string>>();

/**
 * The snapshot directory of a model on a Hugging Face hub, in the standard cache. Asks the hub which commit the revision
 * is and downloads what the cache lacks; a full commit hash that is complete in the cache needs no network, and so does
 * `offline`. When the hub cannot be reached, the revision as last seen is used if it is complete.
 *
 * A repository without safetensors may yield a directory whose model is one .gguf file. With `files: "tokenizer"` the
 * directory may hold no weights at all; it then does not count as that of a model.
 * Errors: `hub_error`, `invalid_value` (a malformed name), `cancelled`.
 */
export async function resolveHub(reference: HubReference, deps: HubDeps): Promise<string> {
  const repo = checkName(reference.repo, /^[\w.-]+(\/[\w.-]+)?$/, "hf:org/name");
  const revision = checkName(reference.revision ?? "main", /^[\w.-]+(\/[\w.-]+)*$/, "a branch, a tag or a commit");
  const files = reference.files ?? "model";
  const clean = { ...deps, endpoint: deps.endpoint.replace(/\/+$/, "") };
  const key = JSON.stringify([clean.cacheDir, clean.endpoint, repo, revision, files, clean.offline]);
  const running = underWay.get(key);
  if (running) return running;
  const work = resolveOnce(repo, revision, files, clean)
    .catch((error: unknown) => Promise.reject(explainDisk(error)))
    .finally(() => underWay.delete(key));
  underWay.set(key, work);
  return work;
}

/** A cache that cannot be written is the user's to mend, not a fault of ours. */
function explainDisk(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (error instanceof PreceptorError || typeof code !== "string") return error;
  const problem = code === "ENOSPC" || code === "EDQUOT" ? "is full" : `cannot be written (${code})`;
  return fail("hub_error", `the hub cache ${problem}; mend this or set HF_HOME to another place`, {
    cause: error,
  });
}

function checkName(name: string, shape: RegExp, expected: string): string {
  if (name.length <= 200 && shape.test(name) && !name.split("/").some((part) => /^\.+$/.test(part))) return name;
  throw fail("invalid_value", `${JSON.stringify(name.slice(0, 80))} is not ${expected}`, { param: "model" });
}

async function resolveOnce(repo: string, revision: string, files: HubFiles, deps: HubDeps): Promise<string> {
  const cache = openRepoCache(deps.cacheDir, repo);
  if (deps.offline) return fromCache(cache, repo, revision, files, "HF_HUB_OFFLINE is set");
  if (/^[0-9a-f]{40}$/.test(revision) && (await missingFrom(cache.snapshot(revision), files)) === null) {
    return cache.snapshot(revision);
  }
  const listing = await list(repo, revision, deps).catch(async (error: unknown) => {
    // Only an unreachable hub lets the cache decide; a refusal (gone, gated) is an answer.
    if (!(error instanceof Unreachable)) throw error;
    return error;
  });
  if (listing instanceof Unreachable) return fromCache(cache, repo, revision, files, listing.reason.message);
  for (const name of selectFiles(repo, listing.names, files)) {
    await downloadFile({ repo, commit: listing.commit, name }, cache, deps);
  }
  if (revision !== listing.commit && !(files === "tokenizer" && (await knowsModel(cache, revision)))) {
    await cache.writeRef(revision, listing.commit);
  }
  return cache.snapshot(listing.commit);
}

/** Whether the revision stands for a complete model; a tokenizer's newer commit must not take it from offline use. */
async function knowsModel(cache: RepoCache, revision: string): Promise<boolean> {
  const commit = await cache.readRef(revision);
  return commit !== undefined && (await missingAt(cache, commit, "model")) === null;
}

/** The commit is what a file of the cache or the user says, so it may be anything. */
async function missingAt(cache: RepoCache, commit: string, files: HubFiles): Promise<string | null> {
  const usable = /^[A-Za-z0-9][\w.-]{0,199}$/.test(commit);
  return usable ? missingFrom(cache.snapshot(commit), files) : "it is not there";
}

class Unreachable extends Error {
  readonly reason: PreceptorError;
  constructor(reason: PreceptorError) {
    super(reason.message, { cause: reason });
    this.reason = reason;
  }
}

async function fromCache(
  cache: RepoCache,
  repo: string,
  revision: string,
  files: HubFiles,
  why: string,
): Promise<string> {
  const commit = (await cache.readRef(revision)) ?? revision;
  const missing = await missingAt(cache, commit, files);
  if (missing === null) return cache.snapshot(commit);
  const what = files === "tokenizer" ? `the tokenizer of ${repo}@${revision}` : `${repo}@${revision}`;
  throw fail(
    "hub_error",
    `${why}, and ${what} is not complete in the cache (${missing}); download it once with the network`,
  );
}

/** The commit a revision stands for and the names of its files. */
async function list(repo: string, revision: string, deps: HubDeps): Promise<{ commit: string; names: string[] }> {
  const url = `${deps.endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}`;
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
    throw refusal(response, repo, revisionMissing ? `revision ${revision} of ${repo}` : `${repo}@${revision}`, deps);
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
