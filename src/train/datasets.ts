/** Where the rows of a job come from: all that training needs to know about datasets. */
import { fail } from "../errors.ts";
import type { TrainingDataset } from "./job-deps.ts";

export interface DatasetSource {
  /** Throws `not_found` with param `dataset`. */
  open(id: string): Promise<TrainingDataset>;
}

export function noDataset(id: string): Error {
  return fail("not_found", `no dataset ${JSON.stringify(id.slice(0, 80))} exists here`, { param: "dataset" });
}
