/** LoRA adapters at one replica: loaded before their first use, under a name that their bytes decide. */

import path from "node:path";
import { unlessAborted } from "../../abort.ts";
import { fail } from "../../errors.ts";
import type { AdapterFiles } from "../../model/checkpoint.ts";
import { once } from "../../once.ts";
import type { Connection } from "./connection.ts";
import { RemoteFailure } from "./failure.ts";
import { MAX_ADAPTERS } from "./limits.ts";

export interface RemoteAdapters {
  /**
   * The name to ask for, loaded; `release` when the request is over. Other bytes are another name, so requests under way
   * keep the version they began with. Throws `RemoteFailure` with the server's words, `invalid_adapter` where the files are no
   * longer those of the version, and the reason of `signal`.
   */
  use(adapter: AdapterFiles, signal: AbortSignal | undefined): Promise<{ name: string; release(): void }>;
  /** The server has lost it (a restart): it is loaded anew on the next use. */
  forget(adapter: AdapterFiles): void;
}

/** The hash that a directory's adapter has now (`model/adapter.ts`). */
export type HashAdapter = (directory: string) => Promise<string>;

interface Loaded {
  loading: Promise<void>;
  isLoaded: boolean;
  /** Ends the loading when nobody waits for it any more. */
  abandoned: AbortController;
  users: number;
}

export function createRemoteAdapters(connection: Connection, hashAdapter: HashAdapter): RemoteAdapters {
  /** Least recently used first. */
  const loaded = new Map<string, Loaded>();

  async function load(name: string, { directory, hash }: AdapterFiles, signal: AbortSignal): Promise<void> {
    // The server reads the files now, perhaps long after they were registered.
    if ((await hashAdapter(directory)) !== hash) throw changed(directory);
    try {
      const body = { lora_name: name, lora_path: directory };
      // The server answers in plain text.
      await connection.post("/load_lora_adapter", body, { signal, anyAnswer: true });
    } catch (error) {
      if (error instanceof RemoteFailure && /already been loaded/.test(error.message)) return;
      throw error;
    }
  }

  function begin(name: string, adapter: AdapterFiles): Loaded {
    const abandoned = new AbortController();
    const loading = load(name, adapter, abandoned.signal);
    const entry: Loaded = { loading, isLoaded: false, abandoned, users: 0 };
    loading.then(
      () => {
        entry.isLoaded = true;
      },
      () => drop(name, entry),
    );
    return entry;
  }

  function drop(name: string, entry: Loaded): void {
    if (loaded.get(name) === entry) loaded.delete(name);
  }

  /** Makes room; what is in use stays, and a server that keeps it is no reason to fail. */
  function retire(): void {
    for (const [name, { users }] of loaded) {
      if (loaded.size <= MAX_ADAPTERS) return;
      if (users > 0) continue;
      loaded.delete(name);
      connection.post("/unload_lora_adapter", { lora_name: name }, { anyAnswer: true }).catch(() => undefined);
    }
  }

  return {
    async use(adapter, signal) {
      const name = nameOf(adapter);
      const entry = loaded.get(name) ?? begin(name, adapter);
      loaded.delete(name);
      loaded.set(name, entry);
      entry.users++;
      const release = once(() => {
        entry.users--;
        if (entry.users === 0 && !entry.isLoaded) {
          drop(name, entry);
          entry.abandoned.abort();
        }
        retire();
      });
      try {
        await unlessAborted(entry.loading, signal);
        return { name, release };
      } catch (error) {
        release();
        throw error;
      }
    },
    forget: (adapter) => void loaded.delete(nameOf(adapter)),
  };
}

function changed(directory: string): Error {
  return fail(
    "invalid_adapter",
    `the files of ${path.basename(directory)} have changed since they were registered; put each version into a directory of its ` +
      "own and PATCH the model to it, or delete the model and register it again",
    { param: "adapter" },
  );
}

/** Sixteen hex digits tell adapters apart; vLLM's metrics carry the name as a label. */
function nameOf({ hash }: AdapterFiles): string {
  return `preceptor-${hash.replace(/^sha256:/, "").slice(0, 16)}`;
}
