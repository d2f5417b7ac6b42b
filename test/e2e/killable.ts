/** A server in a process of its own, to be killed. */
import { type Child, startChild } from "../db/child.ts";
import type { Http } from "./training-fixture.ts";

export interface Server extends Http {
  child: Child;
}

export async function listening(child: Child): Promise<Server> {
  const url = (await child.line((line) => line.startsWith("url "))).slice("url ".length);
  const call = async (route: string, init: RequestInit): Promise<never> => {
    const response = await fetch(url + route, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${route}: ${response.status} ${text}`);
    return JSON.parse(text) as never;
  };
  return {
    child,
    get: (route) => call(route, {}),
    post: (route, body) =>
      call(route, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  };
}

export interface ServerSetting {
  models: string;
  dataDir: string;
  /** "": embedded. */
  databaseUrl: string;
  /** So short that the next server need not wait long for what a killed one held. */
  leaseMs: number;
  /** `memory`: the rows of training-fixture.ts. */
  datasets: "memory" | "own";
}

/** `listening` tells when it can be asked. */
export const startServer = ({ models, dataDir, databaseUrl, leaseMs, datasets }: ServerSetting): Child =>
  startChild("../../e2e/children/training-server.ts", [models, dataDir, databaseUrl, String(leaseMs), datasets]);

export async function end({ child }: Server): Promise<void> {
  child.process.stdin.end();
  await child.exited;
}
