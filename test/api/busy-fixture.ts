/** Every route that asks an engine, over one pretended teacher and one pretended student. */
import { explanationRoutes } from "../../src/api/explanations/routes.ts";
import { createExplanationService, type ExplanationServiceDeps } from "../../src/api/explanations/service.ts";
import { createOpenaiApi } from "../../src/api/openai/compose.ts";
import { scoreRoutes } from "../../src/api/scores/routes.ts";
import { createScoreService } from "../../src/api/scores/service.ts";
import type { Database } from "../../src/db/database.ts";
import { createExplanationStore } from "../../src/db/explanation-store.ts";
import { createApp } from "../../src/http/app.ts";
import type { Authenticator } from "../../src/http/auth.ts";
import { createFakeRegistry } from "./fake-registry.ts";
import { createFakeEngine, encodePlain, type FakeEngineOptions } from "./fakes.ts";

// biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
export type Json = any;

export interface BusyOptions {
  teacher?: FakeEngineOptions;
  student?: FakeEngineOptions;
  authenticate?: Authenticator;
  background?: ExplanationServiceDeps["background"];
}

export interface Sender {
  key?: string;
  /** The other end of the connection. */
  address?: string;
}

const says = { contextLength: 8192, script: () => encodePlain("Add them.<|end_of_explanation|>") };

/** One request per route, each answered by the fixture's models. */
export const EXPLAIN = { teacher: "teacher", question: "What is 2+3?", solution: "5" };
export const SCORE = {
  teacher: "teacher",
  student: "student",
  items: [{ question: "What is 2+3?", solution: "5", explanation: "Two and three more make five." }],
};
export const COMPLETE = { model: "teacher", prompt: "What is 2+3?", max_tokens: 4 };
export const CHAT = { model: "teacher", messages: [{ role: "user", content: "2+3?" }], max_tokens: 4 };

export function busyFixture(database: Database, options: BusyOptions = {}) {
  const teacher = createFakeEngine({ ...says, ...options.teacher });
  const student = createFakeEngine({ contextLength: 8192, ...options.student });
  const registry = createFakeRegistry({ teacher: { engine: teacher }, student: { engine: student } });
  const newService = () =>
    createExplanationService({
      registry,
      store: createExplanationStore(database.db),
      now: () => new Date(),
      random: Math.random,
      log: { error: () => undefined },
      ...(options.background ? { background: options.background } : {}),
    });
  const service = newService();
  const app = createApp({
    routes: [
      explanationRoutes({ explanations: service }),
      scoreRoutes({ scores: createScoreService({ registry }) }),
      createOpenaiApi({ registry, now: Date.now, random: Math.random }),
    ],
    authenticate: options.authenticate ?? null,
    strictJson: true,
  });

  async function send(path: string, body?: object, { key, address }: Sender = {}): Promise<Response> {
    const headers: Record<string, string> = { "content-type": "application/json", host: "127.0.0.1" };
    if (key !== undefined) headers.authorization = `Bearer ${key}`;
    return app.request(
      `http://127.0.0.1/v1/${path}`,
      { method: body ? "POST" : "GET", headers, ...(body ? { body: JSON.stringify(body) } : {}) },
      { incoming: { socket: { remoteAddress: address } } },
    );
  }
  const json = async (path: string, body?: object, sender?: Sender): Promise<Json> =>
    (await send(path, body, sender)).json();
  const text = async (path: string, body: object): Promise<string> => (await send(path, body)).text();
  return { app, teacher, student, registry, service, newService, send, json, text };
}

/** The data of a stream's events, [DONE] left out. */
export function dataOf(stream: string): Json[] {
  return [...stream.matchAll(/^data: (\{.*)$/gm)].map(([, data]) => JSON.parse(data as string));
}
