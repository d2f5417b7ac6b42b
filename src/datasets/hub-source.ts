/** `hf:org/name[@revision][:[configuration/]split]` */
import { fail } from "../errors.ts";

export interface HubSource {
  repo: string;
  revision?: string;
  config?: string;
  split?: string;
}

/** Throws `invalid_value`; whether names are well formed is seen where they are used. */
export function parseHubSource(text: string): HubSource {
  const [, repo, revision, chosen] = /^hf:([^@:]+)(?:@([^:]+))?(?::([^:]+))?$/.exec(text) ?? [];
  const [, config, split] = /^(?:(.+)\/)?([^/]+)$/.exec(chosen ?? "") ?? [];
  if (repo === undefined || (chosen !== undefined && split === undefined)) {
    const message = `${JSON.stringify(text.slice(0, 80))} is not hf:org/name[@revision][:split] or […]:configuration/split`;
    throw fail("invalid_value", message, { param: "source" });
  }
  return {
    repo,
    ...(revision === undefined ? {} : { revision }),
    ...(config === undefined || config === "." ? {} : { config }),
    ...(split === undefined ? {} : { split }),
  };
}
