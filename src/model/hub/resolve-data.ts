/** The files of a dataset on a hub, brought into the cache that other tools use too. */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fail } from "../../errors.ts";
import { fileSize, openRepoCache, type RepoCache } from "./cache.ts";
import { downloadFile } from "./download.ts";
import { checkRepo, checkRevision, explainDisk, list, Unreachable } from "./listing.ts";
import { type DataFiles, selectDataFiles } from "./select-data-files.ts";
import type { HubDeps } from "./types.ts";

export interface HubDataReference {
  repo: string;
  revision?: string | undefined;
  config?: string | undefined;
  split?: string | undefined;
}

export interface ResolvedData extends DataFiles {
  /** What the revision stood for. */
  commit: string;
  /** In the order of `names`. */
  paths: string[];
}

/**
 * Downloads what the cache lacks, each file checked against the hash that the hub names. Offline, or when the hub cannot be
 * reached, the revision as last seen is used if its files are there. Errors: `hub_error`, `invalid_value`, `cancelled`.
 */
export async function resolveHubData(reference: HubDataReference, deps: HubDeps): Promise<ResolvedData> {
  const repo = checkRepo(reference.repo, "source");
  const revision = checkRevision(reference.revision ?? "main", "source");
  const clean = { ...deps, endpoint: deps.endpoint.replace(/\/+$/, "") };
  const cache = openRepoCache(clean.cacheDir, repo, "datasets");
  try {
    if (clean.offline) return await fromCache(cache, reference, revision, "HF_HUB_OFFLINE is set");
    const listing = await list("datasets", repo, revision, clean).catch((error: unknown) => {
      // Only an unreachable hub lets the cache decide; a refusal (gone, gated) is an answer.
      if (!(error instanceof Unreachable)) throw error;
      return error;
    });
    if (listing instanceof Unreachable) return await fromCache(cache, reference, revision, listing.reason.message);
    const { commit, names } = listing;
    const files = selectDataFiles(names, reference);
    for (const name of files.names) await downloadFile({ kind: "datasets", repo, commit, name }, cache, clean);
    await writeNames(cache, commit, names);
    if (revision !== commit) await cache.writeRef(revision, commit);
    return located(cache, commit, files);
  } catch (error) {
    throw explainDisk(error);
  }
}

const located = (cache: RepoCache, commit: string, files: DataFiles): ResolvedData => ({
  ...files,
  commit,
  paths: files.names.map((name) => join(cache.snapshot(commit), name)),
});

/** Which files there are on the hub, beside what is here: without it, half of a split could not be told from all of it. */
const namesFile = (cache: RepoCache, commit: string): string => join(cache.directory, ".preceptor", `${commit}.json`);

async function writeNames(cache: RepoCache, commit: string, names: readonly string[]): Promise<void> {
  const path = namesFile(cache, commit);
  const temporary = `${path}.${randomUUID()}`;
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(temporary, JSON.stringify(names));
  await rename(temporary, path);
}

async function fromCache(
  cache: RepoCache,
  reference: HubDataReference,
  revision: string,
  why: string,
): Promise<ResolvedData> {
  const commit = (await cache.readRef(revision)) ?? revision;
  const what = `${reference.repo}@${revision}`;
  const missing = fail(
    "hub_error",
    `${why}, and ${what} is not complete in the cache; download it once with the network`,
    {
      param: "source",
    },
  );
  if (!/^[A-Za-z0-9][\w.-]{0,199}$/.test(commit)) throw missing;
  const names = await readNames(cache, commit);
  if (names.length === 0) throw missing;
  const found = located(cache, commit, selectDataFiles(names, reference));
  for (const path of found.paths) if ((await fileSize(path)) === undefined) throw missing;
  return found;
}

/** What the hub said or, where another tool downloaded it, what lies there. */
async function readNames(cache: RepoCache, commit: string): Promise<string[]> {
  const told = await readFile(namesFile(cache, commit), "utf8").then(JSON.parse, () => undefined);
  if (Array.isArray(told)) return told.filter((name): name is string => typeof name === "string");
  return readdir(cache.snapshot(commit), { recursive: true }).catch(() => []);
}
