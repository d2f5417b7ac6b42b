import { fail } from "../../errors.ts";
import { openRepoCache, type RepoCache } from "./cache.ts";
import { downloadFile } from "./download.ts";
import { checkRepo, checkRevision, explainDisk, list, Unreachable } from "./listing.ts";
import { selectFiles } from "./select-files.ts";
import { missingFrom } from "./snapshot.ts";
import type { HubDeps, HubFiles, HubReference } from "./types.ts";

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
  const repo = checkRepo(reference.repo, "model");
  const revision = checkRevision(reference.revision ?? "main", "model");
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

async function resolveOnce(repo: string, revision: string, files: HubFiles, deps: HubDeps): Promise<string> {
  const cache = openRepoCache(deps.cacheDir, repo);
  if (deps.offline) return fromCache(cache, repo, revision, files, "HF_HUB_OFFLINE is set");
  if (/^[0-9a-f]{40}$/.test(revision) && (await missingFrom(cache.snapshot(revision), files)) === null) {
    return cache.snapshot(revision);
  }
  const listing = await list("models", repo, revision, deps).catch(async (error: unknown) => {
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
