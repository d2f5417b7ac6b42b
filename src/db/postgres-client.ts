import type { Sql } from "postgres";
import { connectionError, type Session } from "./postgres-session.ts";
import type { Sessions } from "./postgres-sessions.ts";

type Rows = Promise<unknown>;

/** A statement that runs when it is awaited, or when its rows are asked for as arrays: what Drizzle wants of a query. */
interface Statement extends PromiseLike<unknown> {
  values(): Rows;
}

/** The part of a postgres.js client that Drizzle uses. */
interface DrizzleClient {
  options: { parsers: object; serializers: object };
  unsafe(text: string, parameters?: unknown[], options?: object): Statement;
  begin<T>(work: (transaction: DrizzleTransaction) => Promise<T>): Promise<T>;
}

interface DrizzleTransaction extends Pick<DrizzleClient, "options" | "unsafe"> {
  savepoint<T>(work: (transaction: DrizzleTransaction) => Promise<T>): Promise<T>;
}

/** Makes `sessions` look like the postgres.js client that Drizzle takes. */
export function createDrizzleClient(sessions: Sessions): Sql {
  const client: DrizzleClient = {
    options: { parsers: {}, serializers: {} },
    unsafe: (text, parameters, options) =>
      statement((send) => sessions.use((session) => send(session, text, parameters, options))),
    begin: (work) => sessions.use((session) => transact(session, work)),
  };
  return client as unknown as Sql;
}

async function transact<T>(session: Session, work: (transaction: DrizzleTransaction) => Promise<T>): Promise<T> {
  const state = { over: false, savepoints: 0 };
  await send(session, "begin");
  try {
    const result = await work(transactionOn(session, state));
    const { command } = (await send(session, "commit")) as { command: string };
    // A failed statement whose error was swallowed has spoilt the transaction; the server answers "rolled back".
    if (command === "ROLLBACK") throw new Error("the transaction was rolled back: one of its statements had failed");
    return result;
  } catch (error) {
    // A session that cannot even roll back is thrown away, which rolls back on the server.
    await send(session, "rollback").catch(() => {
      session.lost = true;
    });
    throw error;
  } finally {
    state.over = true;
  }
}

function transactionOn(session: Session, state: { over: boolean; savepoints: number }): DrizzleTransaction {
  const transaction: DrizzleTransaction = {
    options: { parsers: {}, serializers: {} },
    unsafe: (text, parameters, options) =>
      statement((run) => {
        // The session may already be someone else's.
        if (state.over) throw new Error("a statement was sent on a transaction that has ended; await every statement");
        return run(session, text, parameters, options);
      }),
    async savepoint(work) {
      const name = `s${state.savepoints++}`;
      await send(session, `savepoint ${name}`);
      try {
        return await work(transaction);
      } catch (error) {
        await send(session, `rollback to ${name}`);
        throw error;
      }
    },
  };
  return transaction;
}

type Send = (session: Session, text: string, parameters?: unknown[], options?: object) => Rows;

function statement(run: (send: Send) => Rows): Statement {
  const rows = async (how: Send): Rows => run(how);
  return {
    // biome-ignore lint/suspicious/noThenProperty: Drizzle awaits what a client returns, or asks it for values()
    then: (resolve, reject) => rows(send).then(resolve, reject),
    values: () => rows(sendForValues),
  };
}

async function send(session: Session, text: string, parameters: unknown[] = [], options: object = {}): Rows {
  if (session.lost) throw connectionError("CONNECTION_CLOSED");
  return session.client.unsafe(text, parameters as never[], options);
}

async function sendForValues(session: Session, text: string, parameters: unknown[] = [], options: object = {}): Rows {
  if (session.lost) throw connectionError("CONNECTION_CLOSED");
  return session.client.unsafe(text, parameters as never[], options).values();
}
