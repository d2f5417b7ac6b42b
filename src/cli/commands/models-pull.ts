import { loadConfig } from "../../config.ts";
import { createProgressReporter } from "../../model/hub/progress.ts";
import { resolveHub } from "../../model/hub/resolve.ts";
import { parseModelSource } from "../../model/source.ts";
import type { CliContext } from "../context.ts";
import { usage } from "../errors.ts";

type HubSource = Extract<ReturnType<typeof parseModelSource>, { kind: "hf" }>;

export async function pull(model: string, context: CliContext): Promise<void> {
  // "org/name" is what people copy from the hub's pages.
  const source = parseModelSource(/^[\w-]+\/[\w.-]+(@.+)?$/.test(model) ? `hf:${model}` : model);
  if (source.kind !== "hf") throw usage(`${model} is no model of the hub; write hf:org/name or hf:org/name@revision.`);
  context.out(`${await download(source, context)}\n`);
}

/** The snapshot directory of a hub model, downloaded as far as the cache lacks it, with a progress bar on stderr. */
export async function download(source: HubSource, context: CliContext): Promise<string> {
  const { hub, allowedHosts } = loadConfig(undefined, { serving: false });
  const progress = createProgressReporter(process.stderr);
  try {
    return await resolveHub(
      { repo: source.repo, revision: source.revision ?? undefined },
      {
        ...hub,
        allowedHosts: allowedHosts.length > 0 ? allowedHosts : undefined,
        fetch,
        signal: context.signal,
        onProgress: progress.report,
      },
    );
  } finally {
    progress.end();
  }
}
