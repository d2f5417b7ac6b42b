/** Remote models that are in use: versions that differ in their adapter only share the servers and what is known of them. */
import { once } from "../../once.ts";
import { type ConnectedRemote, connectRemote, type RemoteSource, type RemotesDeps } from "./remotes.ts";

export interface Connections {
  /** Connects, or joins; a failure is not kept. Until what `hold` returns is called the connection stays, dropped or not. */
  open(version: RemoteSource): Promise<{ remote: ConnectedRemote; hold: () => () => void }>;
  /** Lets go of all whose key is not wanted any more. */
  dropUnless(isWanted: (key: string) => boolean): void;
  close(): Promise<void>;
}

interface Connection {
  connecting: Promise<ConnectedRemote>;
  /** Requests that use it. */
  held: number;
  /** It goes when nobody holds it any more. */
  dropped: boolean;
}

/** Everything that decides a connection. */
export function connectionKey({ source, credential, tokenizer, tempered, contextLength }: RemoteSource): string {
  return [source, credential, tokenizer, tempered, contextLength].join("\n");
}

export function createConnections(deps: RemotesDeps): Connections {
  const connections = new Map<string, Connection>();

  function hold(connection: Connection): () => void {
    connection.held++;
    return once(() => {
      connection.held--;
      if (connection.dropped && connection.held === 0) void disconnect(connection);
    });
  }

  function connect(version: RemoteSource): Connection {
    const key = connectionKey(version);
    const known = connections.get(key);
    if (known) return known;
    const connection: Connection = { connecting: connectRemote(deps, version), held: 0, dropped: false };
    connections.set(key, connection);
    connection.connecting.catch(() => {
      if (connections.get(key) === connection) connections.delete(key);
    });
    return connection;
  }

  return {
    async open(version) {
      const connection = connect(version);
      return { remote: await connection.connecting, hold: () => hold(connection) };
    },
    dropUnless(isWanted) {
      for (const [key, connection] of [...connections]) {
        if (isWanted(key)) continue;
        connections.delete(key);
        connection.dropped = true;
        if (connection.held === 0) void disconnect(connection);
      }
    },
    async close() {
      await Promise.all([...connections.values()].map(disconnect));
    },
  };
}

/** Never rejects. */
async function disconnect({ connecting }: Connection): Promise<void> {
  await connecting.then(({ model }) => model.close()).catch(() => undefined);
}
