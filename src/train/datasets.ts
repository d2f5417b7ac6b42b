/** Where the rows of a job come from: all that training needs to know about datasets. */
import type { TrainingDataset } from "./job-deps.ts";

export interface DatasetSource {
  /** Throws `not_found` with param `dataset`. */
  open(id: string): Promise<TrainingDataset>;
}
