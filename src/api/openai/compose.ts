import type { RouteModule } from "../../http/context.ts";
import { newId } from "../../ids.ts";
import type { ModelRegistry } from "../models/registry.ts";
import { createChatCompletions } from "./chat.ts";
import { createCompletions } from "./completions.ts";
import { createOpenaiModels } from "./models.ts";
import { openaiRoutes } from "./routes.ts";
import { createTokenization } from "./tokenize.ts";

export interface OpenaiApiDeps {
  registry: ModelRegistry;
  /** Milliseconds. */
  now: () => number;
  /** A number in [0, 1). */
  random: () => number;
}

/** All OpenAI-compatible routes over one registry. */
export function createOpenaiApi({ registry, now, random }: OpenaiApiDeps): RouteModule {
  const shared = {
    registry,
    now: () => Math.floor(now() / 1000),
    randomSeed: () => Math.floor(random() * 2 ** 32),
  };
  return openaiRoutes({
    models: createOpenaiModels({ registry }),
    completions: createCompletions({ ...shared, newId: () => newId("cmpl") }),
    chat: createChatCompletions({ ...shared, newId: () => newId("chatcmpl") }),
    tokenization: createTokenization({ registry }),
  });
}
