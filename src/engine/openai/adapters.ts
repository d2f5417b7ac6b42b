/** LoRA adapters at one replica: loaded before their first use, under a name that their bytes decide. */

import type { AdapterFiles } from "../../model/checkpoint.ts";
import { once } from "../../once.ts";
import type { Connection } from "./connection.ts";
import { RemoteFailure } from "./failure.ts";
import { MAX_ADAPTERS } from "./limits.ts";

export interface RemoteAdapters {
  /**
   * The name to ask for, loaded; `release` when the request is over. Other bytes are another name, so requests under way
   * keep the version they began with. Throws `RemoteFailure` with the server's words.
   */
  use(adapter: AdapterFiles, signal: AbortSignal | undefined): Promise<{ name: string; release(): void }>;
  /** The server has lost it (a restart): it is loaded anew on the next use. */
  forget(adapter: AdapterFiles): void;
}

interface Loaded {
  loading: Promise<void>;
  users: number;
}

export function createRemoteAdapters(connection: Connection): RemoteAdapters {
  /** Least recently used first. */
  const loaded = new Map<string, Loaded>();

  async function load(name: string, { directory }: AdapterFiles): Promise<void> {
    try {
      // The server answers in plain text.
      await connection.post("/load_lora_adapter", { lora_name: name, lora_path: directory }, { anyAnswer: true });
    } catch (error) {
      if (error instanceof RemoteFailure && /already been loaded/.test(error.message)) return;
      throw error;
    }
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
      const entry = loaded.get(name) ?? { loading: load(name, adapter), users: 0 };
      loaded.delete(name);
      loaded.set(name, entry);
      entry.users++;
      const release = once(() => {
        entry.users--;
        retire();
      });
      try {
        await entry.loading;
        signal?.throwIfAborted();
        return { name, release };
      } catch (error) {
        release();
        if (!signal?.aborted && loaded.get(name) === entry) loaded.delete(name);
        throw error;
      }
    },
    forget: (adapter) => void loaded.delete(nameOf(adapter)),
  };
}

/** Sixteen hex digits tell adapters apart; vLLM's metrics carry the name as a label. */
function nameOf({ hash }: AdapterFiles): string {
  return `preceptor-${hash.replace(/^sha256:/, "").slice(0, 16)}`;
}
