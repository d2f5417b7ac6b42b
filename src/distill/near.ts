import { createNearDuplicates } from "../datasets/minhash.ts";
import type { DistillConfig } from "./config.ts";
import type { NearDuplicates } from "./select.ts";

/** What a job's `dedupe` asks for. */
export function nearDuplicatesFor({ filters }: Pick<DistillConfig, "filters">): NearDuplicates | null {
  return filters.dedupe === null ? null : createNearDuplicates({ threshold: filters.dedupe });
}
