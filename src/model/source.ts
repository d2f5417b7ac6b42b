/** Where a model comes from: the `model` field of a registration, and local paths resolved under the models directories. */
import { readdir, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { fail } from "../errors.ts";
import { isInside, resolveRoots } from "./paths.ts";

export type ModelSource =
  | { kind: "path"; path: string }
  | { kind: "hf"; repo: string; revision: string | null }
  /** Several servers that serve the same model under the same name are a pool. */
  | { kind: "openai"; baseUrls: readonly string[]; name: string }
  | { kind: "tinker"; baseUrl: string; baseModel: string };

const FORMS =
  "a directory or .gguf file under a models directory, hf:org/name[@revision], openai+http://host:port/v1#served-name (several servers: openai+http://a:8000/v1,http://b:8000/v1#served-name) or tinker+http://host:port#base-model";

/** Longer than any path a file system takes. */
const MAX_LENGTH = 4096;

/** One model on more servers than this is behind a balancer of its own. */
const MAX_SERVERS = 64;

/** Errors: `invalid_value` with param `model`. Touches nothing: hosts and paths are judged when they are used. */
export function parseModelSource(model: string): ModelSource {
  if (model.trim() === "") throw wrong(`model is empty; it must be ${FORMS}`);
  if (model.length > MAX_LENGTH) throw wrong(`model is longer than ${MAX_LENGTH} characters`);
  if (hasControlCharacter(model)) throw wrong("model contains a control character");
  if (model.startsWith("hf:")) return parseHub(model.slice("hf:".length));
  if (model.startsWith("openai+")) return parseOpenai(model.slice("openai+".length));
  if (model.startsWith("tinker+")) return parseTinker(model.slice("tinker+".length));
  if (/^[a-z][a-z0-9+.-]*:/i.test(model))
    throw wrong(`${JSON.stringify(model.slice(0, 80))} is not understood; model must be ${FORMS}`);
  return { kind: "path", path: model };
}

function wrong(message: string): Error {
  return fail("invalid_value", message, { param: "model" });
}

function hasControlCharacter(text: string): boolean {
  return [...text].some((character) => character < " " || character === "\u007f");
}

/** The hub's own rules: 96 characters, no "--" or ".." (they would also leave the cache's folder). */
function parseHub(id: string): ModelSource {
  const at = id.indexOf("@");
  const repo = at === -1 ? id : id.slice(0, at);
  const revision = at === -1 ? null : id.slice(at + 1);
  const part = "[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?";
  if (!new RegExp(`^${part}/${part}$`).test(repo) || repo.includes("--") || repo.includes("..")) {
    throw wrong(`${JSON.stringify(repo.slice(0, 80))} is not a hub id; write hf:org/name or hf:org/name@revision`);
  }
  if (revision !== null && (!/^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/.test(revision) || revision.includes(".."))) {
    throw wrong(`${JSON.stringify(revision.slice(0, 80))} is not a revision; use a branch, a tag or a commit`);
  }
  return { kind: "hf", repo, revision };
}

const OPENAI = "openai+http://host:port/v1#served-name";
const TINKER = "tinker+http://host:port#base-model";

/** Addresses separated by commas, of which the last one carries the name. A comma within a path is written %2C. */
function parseOpenai(text: string): ModelSource {
  const hash = text.indexOf("#");
  const fragment = hash === -1 ? "" : text.slice(hash);
  if (/,\s*(openai\+)?https?:/i.test(fragment)) {
    throw wrong("model goes on with an address after the #name; write the #name once, after the last address");
  }
  const addresses = (hash === -1 ? text : text.slice(0, hash)).split(",");
  if (addresses.length > MAX_SERVERS) {
    throw wrong(`model has ${addresses.length} addresses; at most ${MAX_SERVERS} are possible`);
  }
  const baseUrls: string[] = [];
  let name = "";
  for (const [index, address] of addresses.entries()) {
    const which = addresses.length === 1 ? "the address" : `address ${index + 1} of ${addresses.length}`;
    const bare = index === 0 ? address.trim() : address.trim().replace(/^openai\+/, "");
    const parsed = parseRemote(index === addresses.length - 1 ? bare + fragment : bare, which, OPENAI);
    const same = baseUrls.indexOf(parsed.baseUrl);
    if (same !== -1) throw wrong(`${which} in model is the same as address ${same + 1}; name each server once`);
    baseUrls.push(parsed.baseUrl);
    name = parsed.name;
  }
  return { kind: "openai", baseUrls, name: demandName(name, OPENAI) };
}

function parseTinker(text: string): ModelSource {
  const { baseUrl, name } = parseRemote(text, "the address", TINKER);
  return { kind: "tinker", baseUrl, baseModel: demandName(name, TINKER) };
}

/** Messages do not repeat the address: it may hold a password. */
function parseRemote(address: string, which: string, example: string): { baseUrl: string; name: string } {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw wrong(`${which} in model is not an http or https URL; write ${example}`);
  }
  if (url.username !== "" || url.password !== "") {
    throw wrong(`${which} in model must not contain a user name or password; put the key into credential`);
  }
  const name = decodeFragment(url.hash.slice(1));
  url.hash = "";
  // Not `search`, which is empty for a lone question mark too.
  if (url.href.includes("?")) throw wrong(`${which} in model must not have a query; write ${example}`);
  return { baseUrl: url.href.replace(/\/+$/, ""), name };
}

function demandName(name: string, example: string): string {
  if (name === "") throw wrong(`model names no served model after #; write ${example}`);
  return name;
}

function decodeFragment(fragment: string): string {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return fragment;
  }
}

export interface LocalModel {
  kind: "directory" | "gguf";
  /** Resolved. */
  path: string;
}

/**
 * A path as given by a user → what it stands for. Absolute, or relative to any of `modelsDirs` (tried in order). The
 * resolved path must lie below a resolved models directory. A directory without config.json that holds one GGUF file
 * stands for that file.
 * Errors: `model_source_not_found` (naming where it looked), `model_source_not_allowed`. A path outside is refused in
 * the same words whether it exists or not.
 */
export async function resolveLocalModel(model: string, modelsDirs: readonly string[]): Promise<LocalModel> {
  if (model === "" || model.includes("\0")) throw notFound("the path is empty or contains a NUL byte");
  const candidates = path.isAbsolute(model)
    ? [path.normalize(model)]
    : modelsDirs.map((directory) => path.resolve(directory, model));
  const roots = await resolveRoots(modelsDirs);
  const lexicalRoots = [...roots, ...modelsDirs.map((directory) => path.resolve(directory))];
  let outside = false;
  for (const candidate of candidates) {
    const resolved = await realpath(candidate).catch(() => null);
    if (resolved === null) {
      outside ||= !lexicalRoots.some((root) => isInside(candidate, root));
    } else if (roots.some((root) => isInside(resolved, root))) {
      return classify(resolved, model, roots);
    } else {
      outside = true;
    }
  }
  if (outside) throw notAllowed(model);
  throw notFound(
    `${model} does not exist; looked in the directories of PRECEPTOR_MODELS_DIRS${modelsDirs.length === 0 ? ", which is empty" : ""}`,
  );
}

function notFound(message: string): Error {
  return fail("model_source_not_found", message, { param: "model" });
}

function notAllowed(model: string): Error {
  return fail(
    "model_source_not_allowed",
    `${model} lies outside the models directories; move it into one of them or add its directory to PRECEPTOR_MODELS_DIRS`,
    { param: "model" },
  );
}

async function classify(resolved: string, model: string, roots: readonly string[]): Promise<LocalModel> {
  const info = await stat(resolved);
  if (info.isFile() && isGguf(resolved)) return { kind: "gguf", path: resolved };
  // The hub's cache resolves a .gguf link to a blob named by its hash.
  if (info.isFile() && isGguf(model)) return { kind: "gguf", path: resolved };
  if (!info.isDirectory()) {
    throw notFound(`${model} is neither a directory nor a .gguf file; give the directory that holds config.json`);
  }
  const entries = await readdir(resolved);
  const gguf = entries.filter(isGguf);
  if (entries.includes("config.json") || gguf.length === 0) return { kind: "directory", path: resolved };
  if (gguf.length > 1) {
    throw notFound(`${model} holds ${gguf.length} GGUF files; name one of them: ${gguf.sort().slice(0, 8).join(", ")}`);
  }
  const file = await realpath(path.join(resolved, gguf[0]!)).catch(() => null);
  if (file === null || !roots.some((root) => isInside(file, root))) {
    throw fail("model_source_not_allowed", `${gguf[0]} is a link that leads outside the models directories`, {
      param: "model",
    });
  }
  return { kind: "gguf", path: file };
}

function isGguf(name: string): boolean {
  return name.toLowerCase().endsWith(".gguf");
}

/** Whether a model is served by somebody else: nothing of it is loaded here. */
export function isRemoteSource(model: string): boolean {
  return /^(openai|tinker)\+/.test(model);
}
