import { connect, createServer, type Server, type Socket } from "node:net";

/** A TCP proxy in front of PostgreSQL that can go away, come back, and fall silent. */
export interface TcpProxy {
  url: string;
  /** Closes the port and cuts every connection. */
  stop(): Promise<void>;
  /** Listens again, on the same port. */
  start(): Promise<void>;
  /** Keeps connections open and passes nothing on: a frozen machine or a cable pulled. */
  freeze(frozen: boolean): void;
}

export async function createProxy(target: string): Promise<TcpProxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let frozen = false;
  let server: Server;
  let ownPort = 0;
  const start = (): Promise<void> => {
    server = createServer((client) => {
      const upstream = connect(Number(port || 5432), hostname);
      for (const [from, to] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        sockets.add(from);
        if (frozen) from.pause();
        from.on("data", (chunk) => to.write(chunk));
        from.on("error", () => undefined);
        from.on("close", () => {
          sockets.delete(from);
          to.destroy();
        });
      }
    });
    return new Promise((resolve) => {
      server.listen(ownPort, "127.0.0.1", () => {
        ownPort = (server.address() as { port: number }).port;
        resolve();
      });
    });
  };
  await start();
  const url = new URL(target);
  url.hostname = "127.0.0.1";
  url.port = String(ownPort);
  return {
    url: url.href,
    start,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
    freeze(value) {
      frozen = value;
      for (const socket of sockets) {
        if (value) socket.pause();
        else socket.resume();
      }
    },
  };
}
