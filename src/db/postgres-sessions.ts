import { ANSWER_TIMEOUT_MS, driverError, isAway } from "./errors.ts";
import type { PostgresAddress } from "./postgres-address.ts";
import { connectionError, openSession, type Session, type SessionOptions } from "./postgres-session.ts";

/**
 * Why there is a pool here and the driver's is not used: once a connection has broken, a postgres.js 3.4 client is no
 * longer safe. A transaction's own ROLLBACK writes to a socket that is null and takes the process down (its issues
 * 1154, 1208); its later statements may run on the new connection, outside the transaction (1155); a write pending at
 * the moment of the break leaves that place in the pool mute for ever. So every client here is one connection, and
 * ends with it.
 */
export interface Sessions {
  /** Lends one session to `work`, opening it where needed. Waits at most ANSWER_TIMEOUT_MS for a free one. */
  use<T>(work: (session: Session) => Promise<T>): Promise<T>;
  /** Ends all sessions, once statements under way are done or the time is up. */
  close(timeoutSeconds: number): Promise<void>;
}

export function createSessions(address: PostgresAddress, max: number, options: SessionOptions): Sessions {
  const all = new Set<Session>();
  const idle: Session[] = [];
  const waiting: (() => void)[] = [];
  let opening = 0;
  let closed = false;

  async function open(): Promise<Session> {
    opening++;
    try {
      const session = await openSession(address, options, (lost) => all.delete(lost));
      all.add(session);
      return session;
    } catch (error) {
      // Its place is free: another one may try, and learn for itself that nobody answers.
      waiting.shift()?.();
      throw error;
    } finally {
      opening--;
    }
  }

  async function take(): Promise<Session> {
    const deadline = Date.now() + ANSWER_TIMEOUT_MS;
    for (;;) {
      if (closed) throw connectionError("CONNECTION_ENDED");
      const free = idle.pop();
      if (free && !free.lost) return free;
      if (!free && all.size + opening < max) return open();
      if (!free) await turnOrTimeout(deadline);
    }
  }

  function turnOrTimeout(deadline: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.splice(waiting.indexOf(wake), 1);
        reject(connectionError("ETIMEDOUT"));
      }, deadline - Date.now());
      const wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
      waiting.push(wake);
    });
  }

  function give(session: Session): void {
    if (session.lost || closed) {
      session.lost = true;
      all.delete(session);
      void session.client.end({ timeout: 0 });
    } else idle.push(session);
    waiting.shift()?.();
  }

  return {
    async use(work) {
      const session = await take();
      try {
        return await work(session);
      } catch (error) {
        if (breaksConnection(error)) session.lost = true;
        throw error;
      } finally {
        give(session);
      }
    },
    async close(timeoutSeconds) {
      closed = true;
      for (const wake of waiting.splice(0)) wake();
      await Promise.all([...all].map((session) => session.client.end({ timeout: timeoutSeconds })));
    },
  };
}

/** An error that the server reports about a statement leaves the session usable, as does one thrown by `work` itself. */
function breaksConnection(error: unknown): boolean {
  const driver = driverError(error);
  if (driver && "severity" in driver) return driver.severity !== "ERROR";
  return isAway(driver);
}
