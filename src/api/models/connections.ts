/** Remote models that are in use: versions that differ in their adapter only share the servers and what is known of them. */
import type { RemoteModel } from "../../engine/engine.ts";
import { fail } from "../../errors.ts";
import { isRemoteSource } from "../../model/source.ts";
import { once } from "../../once.ts";
import { type ConnectedRemote, connectRemote, type RemoteSource, type RemotesDeps, reprobe } from "./remotes.ts";

export interface Connections {
  /**
   * Connects, or joins; a failure is not kept. `fresh`: a connection that stands already is probed anew. Until what `hold` returns
   * is called the connection stays, dropped or not.
   */
  open(
    version: RemoteSource,
    options?: { fresh?: boolean },
  ): Promise<{ remote: ConnectedRemote; hold: () => () => void }>;
  /** Lets go of all whose key is not wanted any more. */
  dropUnless(isWanted: (key: string) => boolean): void;
  /** All that stand, those that were dropped and are still held among them. */
  models(): RemoteModel[];
  /** Ends those too that are being made, and those that are held. */
  close(): Promise<void>;
}

interface Connection {
  connecting: Promise<ConnectedRemote>;
  connected: ConnectedRemote | undefined;
  /** Ends the connecting. */
  ending: AbortController;
  /** Requests that use it. */
  held: number;
  /** It goes when nobody holds it any more. */
  dropped: boolean;
}

/** Everything that decides a connection. */
export function connectionKey({ source, credential, tokenizer, tempered, contextLength }: RemoteSource): string {
  return [source, credential, tokenizer, tempered, contextLength].join("\n");
}

/** Whether two versions are served by the same files, or over the same connection. */
export function isShared(a: RemoteSource, b: RemoteSource): boolean {
  return sharedKey(a) === sharedKey(b);
}

/** What versions have in common that differ in their adapter only, and of models from files all that use the files. */
export function sharedKey(version: RemoteSource): string {
  return isRemoteSource(version.source) ? connectionKey(version) : version.source;
}

export function createConnections(deps: RemotesDeps): Connections {
  const connections = new Map<string, Connection>();
  /** Until they are closed. */
  const dropped = new Set<Connection>();

  function hold(connection: Connection): () => void {
    connection.held++;
    return once(() => {
      connection.held--;
      if (connection.dropped && connection.held === 0) void leave(connection);
    });
  }

  async function leave(connection: Connection): Promise<void> {
    await disconnect(connection);
    dropped.delete(connection);
  }

  function connect(version: RemoteSource): Connection {
    const key = connectionKey(version);
    const known = connections.get(key);
    if (known) return known;
    const ending = new AbortController();
    const connecting = connectRemote(deps, version, ending.signal);
    const connection: Connection = { connecting, connected: undefined, ending, held: 0, dropped: false };
    connections.set(key, connection);
    connecting.then(
      (connected) => {
        connection.connected = connected;
      },
      () => {
        if (connections.get(key) === connection) connections.delete(key);
      },
    );
    return connection;
  }

  return {
    async open(version, { fresh = false } = {}) {
      const connection = connect(version);
      if (fresh && connection.connected) await reprobe(deps, version, connection.connected, connection.ending.signal);
      return { remote: await connection.connecting, hold: () => hold(connection) };
    },
    dropUnless(isWanted) {
      for (const [key, connection] of [...connections]) {
        if (isWanted(key)) continue;
        connections.delete(key);
        connection.dropped = true;
        dropped.add(connection);
        if (connection.held === 0) void leave(connection);
      }
    },
    models: () => [...connections.values(), ...dropped].flatMap(({ connected }) => connected?.model ?? []),
    async close() {
      await Promise.all([...connections.values(), ...dropped].map(disconnect));
    },
  };
}

/** Never rejects. */
async function disconnect({ connecting, ending }: Connection): Promise<void> {
  ending.abort(
    fail("engine_failed", "the model was deleted, or the server stops, while its servers were being reached"),
  );
  await connecting.then(({ model }) => model.close()).catch(() => undefined);
}
