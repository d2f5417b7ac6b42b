/** One registered version of a model, and the settings that follow from it. */
import type { ModelRole } from "../../db/records.ts";
import { choosePrecision } from "../../engine/auto-precision.ts";
import type { OpenOptions, Precision } from "../../engine/engine.ts";
import type { Checkpoint } from "../../model/checkpoint.ts";
import { DEFAULT_FORMAT, type FormatSpec } from "../../rlt/formats.ts";
import type { VersionSource } from "./preparation.ts";

/** As stored; hashes are null where a download or conversion was still under way when it was registered. */
export interface Version extends VersionSource {
  id: string;
  version: number;
  /** A checkpoint whose weights stand in place of the version's own. */
  trained?: string | undefined;
  precision: string;
  device: string;
  contextLength: number | null;
  weightsHash: string | null;
  adapterHash: string | null;
  tokenizerHash: string | null;
  formats: Partial<Record<ModelRole, unknown>>;
}

/** What this server has for models; it does not change while the server runs. */
export interface ModelResources {
  /** Compute threads per model. */
  threads: number;
  /** Bytes that loaded models may take together. */
  budgetBytes: number;
}

export function openOptions(version: Version, checkpoint: Checkpoint, resources: ModelResources): OpenOptions {
  return {
    precision: resolvePrecision(version, checkpoint, resources),
    contextLength: version.contextLength ?? defaultContext(checkpoint),
    threads: resources.threads,
    device: resolveDevice(version.device),
  };
}

export function resolvePrecision(
  { precision, device }: Pick<Version, "precision" | "device">,
  checkpoint: Checkpoint,
  { budgetBytes }: Pick<ModelResources, "budgetBytes">,
): Precision {
  if (precision !== "auto") return precision as Precision;
  return choosePrecision(checkpoint, { budgetBytes, device: resolveDevice(device) });
}

/** Every machine has a CPU, and the numbers of others have not been compared with the reference. */
export function resolveDevice(device: string): string {
  return device === "auto" ? "cpu" : device;
}

/**
 * The checkpoint's own context. Those made for fewer than 2,048 positions are toys (tests, miniatures), and the stratos
 * prompts alone take 800 of their tokens: rotary positions have no table that ends, so they are served beyond.
 */
function defaultContext({ config }: Checkpoint): number {
  return config.maxPositions < TOY_POSITIONS ? TOY_CONTEXT : config.maxPositions;
}

const TOY_POSITIONS = 2_048;
const TOY_CONTEXT = 4_096;

/** A model with both roles may be named without one (the OpenAI routes): the teacher's format then. */
export function formatOf(version: Version, role: ModelRole | undefined): FormatSpec {
  const { teacher, student } = version.formats;
  return ((role ? version.formats[role] : undefined) ?? teacher ?? student ?? DEFAULT_FORMAT) as FormatSpec;
}
