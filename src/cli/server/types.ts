/** The API's answers as the command line reads them: the types of the routes themselves, so they cannot drift apart. */
import type { ExplanationResource } from "../../api/explanations/schemas.ts";
import type { ModelResource } from "../../api/models/schemas.ts";
import type { ScoreList, ScoreResource } from "../../api/scores/schemas.ts";

export type ModelBody = ModelResource;
export type ExplanationBody = ExplanationResource;
export type ChoiceBody = ExplanationResource["choices"][number];
export type ScoreBody = ScoreResource;
export type ScoresBody = ScoreList;

export type Tokens = NonNullable<ScoreResource["tokens"]>;
export type SolutionToken = Tokens["solution"][number];
export type ThoughtToken = Tokens["thought"][number];

export interface ListBody<T> {
  object: "list";
  data: T[];
  last_id: string | null;
  has_more: boolean;
}
