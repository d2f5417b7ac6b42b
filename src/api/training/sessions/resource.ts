/** An open session as the API shows it. */
import type { Trainable } from "../../../engine/engine.ts";
import { unixSeconds } from "../../../http/schemas.ts";
import type { PooledSession } from "../../../train/session-pool.ts";
import type { TrainingBase } from "../../models/training-base.ts";
import type { CreateSession, SessionResource } from "./schemas.ts";

/** What is known of a session beside its weights. */
export interface SessionFacts {
  body: CreateSession;
  base: TrainingBase;
  trainable: Trainable;
}

export type OpenSession = PooledSession<SessionFacts>;

export function toResource({ id, facts, session, createdAt, expiresAt }: OpenSession): SessionResource {
  const { body, base, trainable } = facts;
  return {
    id,
    object: "training.session",
    created_at: unixSeconds(createdAt),
    expires_at: unixSeconds(expiresAt),
    model: base.registered?.id ?? body.model,
    version: base.registered?.version ?? null,
    adapter: base.adapterSource,
    full: trainable.kind === "full",
    lora: trainable.kind === "lora" ? loraOf(trainable.lora) : null,
    trainable_parameters: session.trainableParameters,
    step: session.step,
    context_length: session.contextLength,
    vocab_size: session.vocabSize,
    weights_hash: base.checkpoint.weightsHash,
    tokenizer_hash: base.text.tokenizerHash,
    metadata: body.metadata,
  };
}

function loraOf({ rank, alpha, targets, rsLora, seed }: Extract<Trainable, { kind: "lora" }>["lora"]) {
  return { rank, alpha, targets: [...targets], use_rslora: rsLora, seed };
}
