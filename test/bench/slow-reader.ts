import { readFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { setTimeout as delay } from "node:timers/promises";

/** A modem of the eighties: 5 KB/s, and the server must not care. */
const CHUNK_BYTES = 1024;
const CHUNK_INTERVAL_MS = 200;

/** The body a kilobyte at a time. What has not been asked for stays in the kernel, and then with the server. */
export async function* readSlowly(
  response: IncomingMessage,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of response) {
    const bytes = chunk as Uint8Array;
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      const part = bytes.subarray(at, at + CHUNK_BYTES);
      onBytes(part.length);
      yield part;
      await delay(CHUNK_INTERVAL_MS);
    }
  }
}

/** Linux: bytes that lie in the kernel between a server on this machine and its client at `port`; undefined elsewhere. */
export function bytesInKernel(port: number): number | undefined {
  try {
    const sockets = readFileSync("/proc/net/tcp", "utf8").trim().split("\n").slice(1);
    return sockets.reduce((sum, line) => {
      const [, local, remote, , queues] = line.trim().split(/\s+/) as [string, string, string, string, string];
      const [sending, received] = queues.split(":").map((hex) => Number.parseInt(hex, 16)) as [number, number];
      // The server's socket has not sent the ones yet, the client has not read the others.
      return sum + (portOf(remote) === port ? sending : 0) + (portOf(local) === port ? received : 0);
    }, 0);
  } catch {
    return undefined;
  }
}

const portOf = (address: string): number => Number.parseInt(address.split(":")[1] ?? "", 16);
