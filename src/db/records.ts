/** What the stores give and take. Documents are kept as the API shows them (snake_case), so that reading needs no second mapping. */

export type ModelRole = "teacher" | "student";

export interface ModelVersionRecord {
  modelId: string;
  version: number;
  /** The `model` string as the caller gave it. */
  source: string;
  adapter: string | null;
  adapterHash: string | null;
  weightsHash: string | null;
  tokenizerHash: string | null;
  precision: string;
  device: string;
  contextLength: number | null;
  /** Name of a secret, never the secret. */
  credential: string | null;
  /** Where the tokenizer of a remote model comes from; null for others. */
  tokenizer: string | null;
  /** The temperature that a remote model's logits are divided by already. */
  tempered: number | null;
  /** Format per role, a name or a custom object; a role that the model never had is absent. */
  formats: Partial<Record<ModelRole, unknown>>;
  createdAt: Date;
}

/** A registered model with the settings of its current version. */
export interface ModelRecord extends Omit<ModelVersionRecord, "modelId"> {
  id: string;
  /** In the order teacher, student; never empty. */
  roles: ModelRole[];
  /** Versions below it belong to a deleted model that bore the same id: readable, no longer servable. */
  firstVersion: number;
  pinned: boolean;
  metadata: Record<string, string>;
  /** Registration body per role. */
  bodies: Partial<Record<ModelRole, unknown>>;
  /** When the model was registered (a version has its own `createdAt`, see `findVersion`). */
  createdAt: Date;
  updatedAt: Date;
  deletedAt: Date | null;
}

export interface NewModel {
  id: string;
  role: ModelRole;
  format: unknown;
  /** Not null: its presence means that the model has the role. */
  body: unknown;
  source: string;
  precision: string;
  device: string;
  adapter?: string | null | undefined;
  adapterHash?: string | null | undefined;
  weightsHash?: string | null | undefined;
  tokenizerHash?: string | null | undefined;
  contextLength?: number | null | undefined;
  credential?: string | null | undefined;
  tokenizer?: string | null | undefined;
  tempered?: number | null | undefined;
  pinned?: boolean | undefined;
  metadata?: Record<string, string> | undefined;
}

/** What a new version changes; everything else is taken over from the version before. */
export type VersionChanges = Partial<
  Pick<
    ModelVersionRecord,
    "adapter" | "adapterHash" | "weightsHash" | "tokenizerHash" | "source" | "precision" | "device" | "contextLength"
  >
>;

export const UNFINISHED = ["queued", "in_progress"] as const;
export type ExplanationStatus = (typeof UNFINISHED)[number] | "completed" | "failed" | "cancelled";

export interface ChoiceDocument {
  index: number;
  explanation: string;
  finish_reason: "stop" | "length" | "cancelled";
  score?: unknown;
  familiarity?: unknown;
  tokens?: unknown;
}

export interface UsageDocument {
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens: number;
  scored_tokens: number;
}

/** An error as the API shows it. */
export interface ErrorDocument {
  message: string;
  type: string;
  param: string | null;
  code: string;
}

export interface ExplanationRecord {
  id: string;
  createdAt: Date;
  updatedAt: Date;
  status: ExplanationStatus;
  teacherId: string;
  teacherVersion: number;
  teacherCheckpoint: string | null;
  studentId: string | null;
  studentVersion: number | null;
  studentCheckpoint: string | null;
  question: string;
  solution: string;
  choices: ChoiceDocument[];
  /** Index of the best choice under `rankBy`. */
  best: number | null;
  usage: UsageDocument;
  /** Sampling parameters with defaults filled in, the seed too. */
  sampling: Record<string, unknown>;
  rankBy: Record<string, unknown> | null;
  /** The rendered prompt, where it was asked for. */
  prompt: string | null;
  error: ErrorDocument | null;
  metadata: Record<string, string>;
}

export interface NewExplanation {
  id: string;
  status: ExplanationStatus;
  teacherId: string;
  teacherVersion: number;
  teacherCheckpoint?: string | null | undefined;
  studentId?: string | null | undefined;
  studentVersion?: number | null | undefined;
  studentCheckpoint?: string | null | undefined;
  question: string;
  solution: string;
  choices?: ChoiceDocument[] | undefined;
  best?: number | null | undefined;
  usage?: UsageDocument | undefined;
  sampling: object;
  rankBy?: object | null | undefined;
  prompt?: string | null | undefined;
  error?: ErrorDocument | null | undefined;
  metadata?: Record<string, string> | undefined;
}

/** undefined leaves a field as it is. */
export type ExplanationChanges = {
  [Field in "status" | "choices" | "best" | "usage" | "prompt" | "error"]?: ExplanationRecord[Field] | undefined;
};

export interface PageQuery {
  /** Id of the last row of the page before. */
  after?: string | undefined;
  /** At least 1. */
  limit: number;
  /** By creation: newest first is `desc`. */
  order: "asc" | "desc";
}

export interface Page<Row> {
  rows: Row[];
  hasMore: boolean;
}
