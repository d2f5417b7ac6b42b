/** From a registration's words to files and servers; what `serve` and commands without a server need alike. */
import path from "node:path";
import type { Logger } from "pino";
import { createPreparation, type Preparation } from "./api/models/preparation.ts";
import { type Config, findCredential } from "./config.ts";
import type { createOpenAiEngine } from "./engine/openai/engine.ts";
import { materialiseGguf } from "./model/gguf/materialise.ts";
import { resolveHub } from "./model/hub/resolve.ts";
import type { HubDeps } from "./model/hub/types.ts";
import type { TextService } from "./text/text.ts";

export interface PreparationParts {
  config: Config;
  text: TextService;
  remotes: ReturnType<typeof createOpenAiEngine>;
  checkpointsDir: string;
  log: Pick<Logger, "warn">;
  hub: HubDeps;
}

export const cacheOf = ({ dataDir }: Pick<Config, "dataDir">): string => path.join(dataDir, "cache");

/** `ending` ends downloads, which are resumed the next time. */
export const hubOf = (config: Config, ending: AbortSignal): HubDeps => ({
  ...config.hub,
  // Downloads are redirected to the hub's storage hosts; an allow-list, once there is one, must name them.
  allowedHosts: config.allowedHosts.length > 0 ? config.allowedHosts : undefined,
  fetch,
  signal: ending,
});

export function preparationFor(parts: PreparationParts): Preparation {
  const { config, text, remotes, checkpointsDir, log, hub } = parts;
  const cacheDir = cacheOf(config);
  return createPreparation({
    text,
    modelsDirs: config.modelsDirs,
    checkpointsDir,
    cacheRoots: [cacheDir, config.hub.cacheDir],
    materialiseGguf: (file) => materialiseGguf(file, cacheDir),
    resolveHub: ({ repo, revision, files }) => resolveHub({ repo, revision: revision ?? undefined, files }, hub),
    remotes: {
      engine: remotes,
      credential: (name) => findCredential(config, name),
      unverified: (source) =>
        log.warn(
          { model: source },
          "the server cannot be asked for its tokens, so its tokenizer has not been compared",
        ),
    },
  });
}
