import { createOpenaiApi } from "../../src/api/openai/compose.ts";
import type { EngineModel } from "../../src/engine/engine.ts";
import { createApp } from "../../src/http/app.ts";
import type { ApiApp } from "../../src/http/context.ts";
import type { TextModel } from "../../src/text/text.ts";
import { createFakeRegistry, type FakeRegistry } from "./fake-registry.ts";
import { createFakeEngine, createFakeText, encodePlain, type FakeEngine, type FakeEngineOptions } from "./fakes.ts";

export interface Fixture {
  app: ApiApp;
  /** The fake engine; unused where a real one was given. */
  engine: FakeEngine;
  registry: FakeRegistry;
  /** Parsed answer; `status` beside it. */
  post(path: string, body: unknown): Promise<{ status: number; body: Answer }>;
  /** Chunks of a stream; the last line must be [DONE] unless the stream failed. */
  stream(path: string, body: object): Promise<{ chunks: Answer[]; done: boolean }>;
}

/** Answers are looked into freely; a wrong path gives undefined and fails the assertion. */
// biome-ignore lint/suspicious/noExplicitAny: JSON of any shape
export type Answer = any;

/** One model "fake" behind the real app. `says`: the text it writes, then it ends its turn. */
export function openaiFixture(
  options: FakeEngineOptions & {
    says?: string;
    text?: TextModel;
    engine?: EngineModel;
    random?: () => number;
  } = {},
): Fixture {
  const { says, text = createFakeText(), engine: real, random = () => 0.5, ...engineOptions } = options;
  const script = says === undefined ? {} : { script: () => encodePlain(says) };
  const engine = createFakeEngine({ ...script, ...engineOptions });
  const registry = createFakeRegistry({ fake: { engine: real ?? engine, text } });
  const app = createApp({
    routes: [createOpenaiApi({ registry, now: () => 1_767_225_600_000, random })],
    authenticate: null,
    strictJson: true,
  });
  const send = (path: string, body: unknown): Promise<Response> =>
    Promise.resolve(
      app.request(path, {
        method: "POST",
        headers: { "content-type": "application/json", host: "localhost" },
        body: JSON.stringify(body),
      }),
    );
  return {
    app,
    engine,
    registry,
    async post(path, body) {
      const response = await send(path, body);
      return { status: response.status, body: await response.json() };
    },
    async stream(path, body) {
      const response = await send(path, { ...body, stream: true });
      if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
      const lines = (await response.text()).split("\n\n").filter((line) => line !== "" && !line.startsWith(":"));
      const data = lines.map((line) => line.replace(/^data: /, ""));
      const done = data.at(-1) === "[DONE]";
      return { chunks: (done ? data.slice(0, -1) : data).map((line) => JSON.parse(line)), done };
    },
  };
}
