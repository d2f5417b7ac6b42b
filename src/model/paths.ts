/**
 * Which files a model may consist of. A path is judged after resolving links, because the hub's own cache is made of
 * links (snapshots/<revision>/model.safetensors → blobs/<hash>) and because a link is the easy way out of a directory.
 */
import { access, constants, readdir, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { fail } from "../errors.ts";

/** True when `child` is `parent` or lies below it. Both must be resolved. */
export function isInside(child: string, parent: string): boolean {
  const relative = path.relative(parent, child);
  return relative === "" || (relative !== ".." && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative));
}

/** Resolves the roots that exist; one that does not exist cannot contain anything. */
export async function resolveRoots(roots: readonly string[]): Promise<string[]> {
  const resolved = await Promise.all(roots.map((root) => realpath(root).catch(() => null)));
  return resolved.filter((root) => root !== null);
}

/**
 * Roots for a directory opened without any: itself, and for a snapshot of the hub cache
 * (`models--org--name/snapshots/<revision>`) the repository folder that holds its blobs.
 */
function ownRoots(directory: string): string[] {
  const snapshots = path.dirname(directory);
  const repository = path.dirname(snapshots);
  const inHubCache = path.basename(snapshots) === "snapshots" && path.basename(repository).startsWith("models--");
  return inHubCache ? [directory, repository] : [directory];
}

/** A model directory that has been judged: files are asked for by name and come back resolved. */
export interface ModelDirectory {
  /** Resolved. */
  readonly path: string;
  /** Its last part: what messages call it, since the server's paths are nobody else's business. */
  readonly name: string;
  /** Names of its entries. */
  readonly entries: ReadonlySet<string>;
  /** Resolved path and size of a regular file directly in the directory. Errors: `invalid_checkpoint`, `model_source_not_allowed`. */
  file(name: string): Promise<{ path: string; bytes: number }>;
  /** Resolved directories below which every file must lie. */
  readonly roots: readonly string[];
}

/** Errors: `model_source_not_found`, `model_source_not_allowed`. */
export async function openDirectory(directory: string, allowedRoots?: readonly string[]): Promise<ModelDirectory> {
  if (directory === "" || directory.includes("\0")) {
    throw fail("model_source_not_found", "the model directory's path is empty or contains a NUL byte");
  }
  const resolved = await realpath(directory).catch(() => null);
  if (resolved === null || !(await stat(resolved)).isDirectory()) {
    throw fail(
      "model_source_not_found",
      `${path.basename(directory)} is not a directory; give the directory that holds config.json`,
    );
  }
  const roots = allowedRoots === undefined ? ownRoots(resolved) : await resolveRoots(allowedRoots);
  if (!roots.some((root) => isInside(resolved, root))) {
    throw fail(
      "model_source_not_allowed",
      `${path.basename(directory)} lies outside the models directories; move it below one of them or add its directory to PRECEPTOR_MODELS_DIRS`,
    );
  }
  const entries = await readdir(resolved).catch((cause) => {
    throw fail("model_source_not_found", `${path.basename(directory)} cannot be read; check its permissions`, {
      cause,
    });
  });
  return {
    path: resolved,
    name: path.basename(resolved),
    entries: new Set(entries),
    file: (name) => resolveFile(resolved, name, roots),
    roots,
  };
}

async function resolveFile(directory: string, name: string, roots: readonly string[]) {
  if (name === "" || name.includes("\0") || name !== path.basename(name) || name === "." || name === "..") {
    throw fail("invalid_checkpoint", `${JSON.stringify(name)} is not the name of a file in the model's own directory`);
  }
  const resolved = await realpath(path.join(directory, name)).catch(() => null);
  if (resolved === null) throw fail("invalid_checkpoint", `${name} is missing from ${path.basename(directory)}`);
  if (!roots.some((root) => isInside(resolved, root))) {
    throw fail(
      "model_source_not_allowed",
      `${name} is a link to a file outside the models directories; copy the file into the model's directory`,
    );
  }
  const info = await stat(resolved);
  // A FIFO or a device would block the reader for ever.
  if (!info.isFile()) throw fail("invalid_checkpoint", `${name} in ${path.basename(directory)} is not a regular file`);
  await access(resolved, constants.R_OK).catch((cause) => {
    throw fail("invalid_checkpoint", `${name} in ${path.basename(directory)} cannot be read; check its permissions`, {
      cause,
    });
  });
  return { path: resolved, bytes: info.size };
}
