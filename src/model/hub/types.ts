/** `tokenizer`: the small text files only, for a model that runs elsewhere. */
export type HubFiles = "model" | "tokenizer";

/** What kind of repository; the hub keeps each kind under addresses of its own. */
export type RepoKind = "models" | "datasets";

export interface HubReference {
  /** `org/name`, or `name` for the few models without an organisation. */
  repo: string;
  /** Branch, tag, pull-request ref or commit. Default `main`. */
  revision?: string | undefined;
  /** Default `model`. */
  files?: HubFiles | undefined;
}

export interface DownloadProgress {
  file: string;
  /** Bytes on disk, those of an earlier attempt included. */
  received: number;
  total: number;
}

export interface HubDeps {
  /** Folder of the hub cache: `$HF_HUB_CACHE`, by default `$HF_HOME/hub`. */
  cacheDir: string;
  /** `https://huggingface.co`, or a mirror. */
  endpoint: string;
  /** Sent to the endpoint's own host only. */
  token?: string | undefined;
  /** Use what is in the cache and reach for nothing. */
  offline: boolean;
  /** When given, only these hosts and the endpoint's own may be reached (a redirect may lead to a CDN). */
  allowedHosts?: readonly string[] | undefined;
  fetch: typeof globalThis.fetch;
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** For tests: how to wait between attempts. */
  sleep?: ((milliseconds: number) => Promise<void>) | undefined;
}
