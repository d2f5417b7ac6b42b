import { type FileHandle, mkdir, open, rename, rm, statfs, truncate } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { reasonOf } from "../../error-reason.ts";
import { fail } from "../../errors.ts";
import { fileSize, type RepoCache } from "./cache.ts";
import { withLock } from "./lock.ts";
import { givenUp, hubRequest, IDLE_TIMEOUT_MS, MAX_ATTEMPTS, pause, TransientError, withRetries } from "./request.ts";
import { refusal } from "./status.ts";
import type { HubDeps, RepoKind } from "./types.ts";
import { matchesEtag } from "./verify.ts";

export interface RemoteFile {
  /** Default `models`. */
  kind?: RepoKind;
  repo: string;
  commit: string;
  name: string;
}

interface RemoteContents {
  etag: string;
  /** Undefined where the server does not say. */
  size: number | undefined;
}

/**
 * Brings one file into the cache and links it into its snapshot. An interrupted download goes on where it stopped; what
 * arrives is checked against the hash in its etag before it gets its name. Errors: `hub_error`, `cancelled`.
 */
export async function downloadFile(file: RemoteFile, cache: RepoCache, deps: HubDeps): Promise<void> {
  const repo = file.kind === "datasets" ? `datasets/${file.repo}` : file.repo;
  const name = file.name.split("/").map(encodeURIComponent).join("/");
  const url = `${deps.endpoint}/${repo}/resolve/${encodeURIComponent(file.commit)}/${name}`;
  const contents = await withRetries(file.name, deps, () => describe(url, file, deps));
  const blob = cache.blob(contents.etag);
  if (!(await isComplete(blob, contents))) {
    const lock = join(dirname(cache.directory), ".locks", basename(cache.directory), `${contents.etag}.preceptor.lock`);
    await withLock(lock, deps.signal, async () => {
      // Another process may have finished it meanwhile.
      if (!(await isComplete(blob, contents))) await fetchBlob(url, blob, contents, file, deps);
    });
  }
  await cache.link(file.commit, file.name, contents.etag);
}

async function isComplete(blob: string, contents: RemoteContents): Promise<boolean> {
  const size = await fileSize(blob);
  return size !== undefined && (contents.size === undefined || size === contents.size);
}

/** Etag and size. Large files carry them in x-linked-* headers of the redirect to the CDN. */
async function describe(url: string, file: RemoteFile, deps: HubDeps): Promise<RemoteContents> {
  let { response, first } = await hubRequest(url, deps, { method: "HEAD", headersOnly: true });
  if (response.status === 405 || response.status === 501) {
    ({ response, first } = await hubRequest(url, deps, { headersOnly: true }));
    await response.body?.cancel();
  }
  if (response.status >= 400) throw refusal(response, file.repo, `${file.name} of ${file.repo}`, deps);
  const etag = (first.get("x-linked-etag") ?? first.get("etag") ?? "").replace(/^W\//, "").replaceAll('"', "");
  const length = first.get("x-linked-size") ?? (response.status < 300 ? first.get("content-length") : null);
  const size = length === null || length === "" ? undefined : Number(length);
  if (etag === "" || (size !== undefined && !Number.isSafeInteger(size))) {
    throw fail(
      "hub_error",
      `${file.name}: the hub names neither etag nor size; is ${deps.endpoint} a Hugging Face hub?`,
    );
  }
  return { etag, size };
}

async function fetchBlob(
  url: string,
  blob: string,
  contents: RemoteContents,
  file: RemoteFile,
  deps: HubDeps,
): Promise<void> {
  await mkdir(dirname(blob), { recursive: true });
  const partial = `${blob}.incomplete`;
  await demandSpace(partial, contents, file);
  for (let round = 1; ; round++) {
    await fetchAll(url, partial, contents, file, deps);
    const size = (await fileSize(partial)) ?? 0;
    if (await matchesEtag(partial, contents.etag, size)) break;
    // The beginning may stem from an earlier, broken attempt: once more from nothing.
    await rm(partial, { force: true });
    if (round === 2) {
      throw fail("hub_error", `${file.name}: what arrived does not have the hash the hub announced; try again later`);
    }
  }
  await rename(partial, blob);
}

/** Attempts until all bytes are there. Progress resets the count of failures: a bad line finishes in the end. */
async function fetchAll(
  url: string,
  partial: string,
  contents: RemoteContents,
  file: RemoteFile,
  deps: HubDeps,
): Promise<void> {
  for (let failures = 0; ; ) {
    const before = (await fileSize(partial)) ?? 0;
    if (contents.size !== undefined && before > contents.size) await truncate(partial, 0);
    else if (contents.size !== undefined && contents.size > 0 && before === contents.size) return;
    try {
      await fetchRest(url, partial, contents, file, deps);
      return;
    } catch (error) {
      if (!(error instanceof TransientError)) throw error;
      failures = ((await fileSize(partial)) ?? 0) > before ? 1 : failures + 1;
      if (failures >= MAX_ATTEMPTS) throw givenUp(file.name, error);
      await pause(failures, deps, error.retryAfterMs);
    }
  }
}

/** One request for what is missing, appended to the partial file. */
async function fetchRest(
  url: string,
  partial: string,
  contents: RemoteContents,
  file: RemoteFile,
  deps: HubDeps,
): Promise<void> {
  const idle = new AbortController();
  const signal = deps.signal ? AbortSignal.any([deps.signal, idle.signal]) : idle.signal;
  let offset = (await fileSize(partial)) ?? 0;
  let timer = setTimeout(() => idle.abort(), IDLE_TIMEOUT_MS);
  const handle = await open(partial, "a");
  try {
    const headers = offset > 0 ? { range: `bytes=${offset}-` } : {};
    const { response } = await hubRequest(url, deps, { headers, signal });
    if (response.status === 416) {
      await handle.truncate(0);
      throw new TransientError("the hub cannot continue the download");
    }
    if (response.status >= 400) throw refusal(response, file.repo, `${file.name} of ${file.repo}`, deps);
    const continues = response.status === 206 && continuesAt(response, offset);
    if (offset > 0 && !continues) {
      await handle.truncate(0);
      if (response.status === 206) throw new TransientError("the hub continued the download at another place");
      offset = 0;
    }
    for await (const chunk of response.body ?? []) {
      clearTimeout(timer);
      timer = setTimeout(() => idle.abort(), IDLE_TIMEOUT_MS);
      await writeAll(handle, chunk as Uint8Array);
      offset += chunk.length;
      if (contents.size !== undefined && offset > contents.size) {
        throw fail("hub_error", `${file.name}: the hub sends more than the ${contents.size} bytes it announced`);
      }
      deps.onProgress?.({ file: file.name, received: offset, total: contents.size ?? offset });
    }
    await handle.sync();
  } catch (error) {
    throw explain(error, idle.signal.aborted, file, deps);
  } finally {
    clearTimeout(timer);
    await handle.close();
  }
  if (contents.size !== undefined && offset < contents.size) {
    throw new TransientError(`the connection ended after ${offset} of ${contents.size} bytes`);
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.length; ) done += (await handle.write(chunk, done)).bytesWritten;
}

function continuesAt(response: Response, offset: number): boolean {
  return response.headers.get("content-range")?.startsWith(`bytes ${offset}-`) ?? false;
}

/** What a failure in the middle of a transfer means. */
function explain(error: unknown, idle: boolean, file: RemoteFile, deps: HubDeps): unknown {
  if (deps.signal?.aborted) return fail("cancelled", `the download of ${file.name} was cancelled`, { cause: error });
  if (error instanceof TransientError) return idle ? new TransientError("the hub sends nothing") : error;
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") return diskFull(file);
  if (error instanceof TypeError || idle || (error as Error).name === "AbortError") {
    return new TransientError(
      idle ? "the hub sends nothing" : `the connection was cut (${reasonOf(error)})`,
      undefined,
      error,
    );
  }
  return error;
}

async function demandSpace(partial: string, contents: RemoteContents, file: RemoteFile): Promise<void> {
  const missing = (contents.size ?? 0) - ((await fileSize(partial)) ?? 0);
  const { bavail, bsize } = await statfs(dirname(partial));
  if (missing > bavail * bsize) throw diskFull(file, missing);
}

function diskFull(file: RemoteFile, missing?: number): Error {
  const need = missing === undefined ? "" : ` (${(missing / 1e9).toFixed(1)} GB are still needed)`;
  return fail("hub_error", `${file.name}: the disk of the hub cache is full${need}; free some space or set HF_HOME`);
}
