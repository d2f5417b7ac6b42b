import { connect, Socket } from "node:net";
import { drizzle } from "drizzle-orm/postgres-js";
import postgres, { type Options, type Sql } from "postgres";
import type { PostgresAddress, PostgresHost } from "./postgres-address.ts";

/** One connection. Its client never makes a second one: `postgres-sessions.ts` says why. */
export interface Session {
  client: Sql;
  /** The connection is gone: nothing may be sent any more. */
  lost: boolean;
}

export interface SessionOptions {
  /** A connection silent for this long is dead; 0 = never (see `oneSocket`). */
  silenceMs: number;
  driver: Options<Record<string, never>>;
}

/** Connects to the first of the address's hosts that answers, or rejects with the last one's error. */
export async function openSession(
  address: PostgresAddress,
  options: SessionOptions,
  onLost: (session: Session) => void,
): Promise<Session> {
  let failure: unknown;
  for (const host of address.hosts) {
    const session = makeSession(address.url, host, options, onLost);
    try {
      await session.client`select 1`;
      return session;
    } catch (error) {
      failure = error;
      session.lost = true;
      void session.client.end({ timeout: 0 });
    }
  }
  throw failure;
}

function makeSession(
  url: string,
  host: PostgresHost,
  { silenceMs, driver }: SessionOptions,
  onLost: (session: Session) => void,
): Session {
  const lose = (): void => {
    session.lost = true;
    onLost(session);
  };
  const client = postgres(url, {
    ...driver,
    host: host.name,
    port: host.port,
    max: 1,
    max_lifetime: null,
    onclose: lose,
    ...oneSocket(host, silenceMs, lose),
  });
  // For its side effect: it teaches the client to leave dates and documents to Drizzle's columns.
  drizzle(client);
  const session: Session = { client, lost: false };
  return session;
}

export function connectionError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/**
 * The driver's hook to make its socket, used for two things. First, silence: a connection whose peer vanished without a
 * word (a pulled cable, a frozen machine) would stay in use for as long as TCP retransmits, about 15 minutes; since
 * statements end within STATEMENT_TIMEOUT_MS, one that is silent for longer is dead. Second, no reconnecting: where
 * something accepts and closes at once (a container proxy whose server is down) the driver would try for ever.
 * Sockets are handed over before they are connected, and errors arrive as events: a hook that throws leaves the client
 * waiting.
 */
function oneSocket(host: PostgresHost, silenceMs: number, lost: () => void): object {
  let made = false;
  const socket = (): Socket => {
    if (made) return doomed(connectionError("ECONNRESET"));
    made = true;
    try {
      const raw = host.path ? connect(host.path) : connect(host.port, host.name);
      raw.setTimeout(silenceMs, () => {
        lost();
        raw.destroy(connectionError("ETIMEDOUT"));
      });
      // The driver reads it from here: it is the name that a TLS certificate must bear.
      return Object.assign(raw, { host: host.name });
    } catch (error) {
      return doomed(error as Error);
    }
  };
  return { socket };
}

/** A socket that fails once the driver listens to it. */
function doomed(error: Error): Socket {
  const socket = new Socket();
  setImmediate(() => socket.destroy(error));
  return socket;
}
