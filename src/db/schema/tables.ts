import { explanations } from "./explanations.ts";
import { models, modelVersions } from "./models.ts";

/** All tables, as Drizzle's type parameter wants them. */
export const schema = { models, modelVersions, explanations };
