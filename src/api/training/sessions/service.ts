import path from "node:path";
import type { Caller } from "../../../caller.ts";
import { fail } from "../../../errors.ts";
import { unixSeconds } from "../../../http/schemas.ts";
import { newId } from "../../../ids.ts";
import type { CheckpointStore } from "../../../train/checkpoint-store.ts";
import { openTrainingSession, type SessionDeps } from "../../../train/session.ts";
import { createSessionPool, type SessionPoolDeps } from "../../../train/session-pool.ts";
import type { TrainingBases } from "../../models/training-base.ts";
import { logprobsFrom } from "./logprobs.ts";
import { type OpenSession, type SessionFacts, toResource } from "./resource.ts";
import { sampleFrom } from "./sampling.ts";
import type {
  CheckpointResource,
  CreateSession,
  LogprobsBody,
  LogprobsResultBody,
  LossBody,
  LossResult,
  OptimStepBody,
  SampleBody,
  SampleResult,
  SessionResource,
} from "./schemas.ts";
import { configOf, engineConfig, metricsOf, sequencesOf, toLogprobs } from "./sequences.ts";
import { chooseTrainable, parametersOf, refuseContradictions, registeredName, resumedFrom } from "./trainable.ts";

/** All but `create` throw `session_lost` where the session is not open. */
export interface TrainingSessionService {
  /** Throws `too_many_sessions`, `out_of_memory`, and what is wrong with model or adapter. */
  create(body: CreateSession, caller: Caller): Promise<SessionResource>;
  get(id: string): SessionResource;
  /** `after`: an id that the caller has seen; a session that has ended since begins nothing anew. */
  page(query: { after?: string | undefined; limit: number; order: "asc" | "desc" }): {
    data: SessionResource[];
    hasMore: boolean;
  };
  forwardBackward(id: string, body: LossBody, caller: Caller): Promise<LossResult>;
  forward(id: string, body: LossBody, caller: Caller): Promise<LossResult>;
  optimStep(id: string, body: OptimStepBody): Promise<{ step: number; grad_norm: number }>;
  sample(id: string, body: SampleBody, caller: Caller): Promise<SampleResult>;
  logprobs(id: string, body: LogprobsBody, caller: Caller): Promise<LogprobsResultBody>;
  save(id: string, options: { state: boolean }): Promise<CheckpointResource>;
  remove(id: string): Promise<void>;
  /** Ends sessions that have been idle for too long. */
  sweep(): Promise<void>;
  close(): Promise<void>;
}

export interface TrainingSessionDeps extends SessionDeps, SessionPoolDeps {
  models: TrainingBases;
  checkpoints: CheckpointStore;
  /** Where sessions keep what they work with; it goes with the process. */
  directory: string;
  /** A number in [0, 1). */
  random: () => number;
}

const SEED_RANGE = 2 ** 32;

export function createTrainingSessionService(deps: TrainingSessionDeps): TrainingSessionService {
  const pool = createSessionPool<SessionFacts>(deps);
  const randomSeed = (): number => Math.floor(deps.random() * SEED_RANGE);

  async function loss(
    { session }: OpenSession,
    body: LossBody,
    { signal }: Caller,
    kind: "forwardBackward" | "forward",
  ): Promise<LossResult> {
    const config = configOf(body);
    const sequences = sequencesOf(body, config, session);
    const { step } = session;
    const result = await session[kind]({ sequences, config: engineConfig(body, config), signal });
    const metrics = metricsOf(body.loss, sequences, result, config);
    return { loss: result.loss, logprobs: toLogprobs(result), metrics, config, step };
  }

  return {
    async create(body, { signal }) {
      refuseContradictions(body);
      const base = await deps.models.trainingBase(body.model, { adapter: body.adapter ?? null, signal });
      const trainable = chooseTrainable(body, base, randomSeed);
      const id = newId("sess");
      const parameters = parametersOf(trainable, base.checkpoint);
      const entry = await pool.add({ id, parameters, facts: { body, base, trainable } }, async () => {
        const { checkpoint, serving } = base;
        const directory = path.join(deps.directory, id);
        const resume = resumedFrom(body, base, trainable);
        const session = await openTrainingSession(deps, { checkpoint, trainable, serving, directory, resume });
        // Whoever has gone does not know its id.
        if (signal.aborted) {
          await session.close();
          throw fail("cancelled", "the client went away");
        }
        return session;
      });
      return toResource(entry);
    },
    get: (id) => toResource(pool.get(id)),
    page({ after, limit, order }) {
      const all = order === "asc" ? pool.list() : pool.list().reverse();
      const start = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
      if (start === 0 && after !== undefined) pool.get(after);
      return { data: all.slice(start, start + limit).map(toResource), hasMore: all.length > start + limit };
    },
    forwardBackward: (id, body, caller) => pool.use(id, (entry) => loss(entry, body, caller, "forwardBackward")),
    forward: (id, body, caller) => pool.use(id, (entry) => loss(entry, body, caller, "forward")),
    optimStep: (id, body) =>
      pool.use(id, async ({ session }) => {
        const { learning_rate: learningRate, betas, eps, weight_decay: weightDecay, clip } = body;
        const { step, gradNorm } = await session.optimStep({ learningRate, betas, eps, weightDecay, clip });
        if (Number.isFinite(gradNorm)) return { step, grad_norm: gradNorm };
        throw fail(
          "loss_not_finite",
          "the gradients were not finite, and the weights no longer are; create another session and go on from what you saved",
        );
      }),
    sample: (id, body, caller) => pool.use(id, (entry) => sampleFrom(entry, body, caller, randomSeed)),
    logprobs: (id, body, caller) => pool.use(id, (entry) => logprobsFrom(entry, body, caller)),
    save: (id, { state }) =>
      pool.use(id, async ({ session, facts: { body, base, trainable } }) => {
        const kind = trainable.kind === "full" ? "full" : "adapter";
        const saved = await deps.checkpoints.create({
          kind,
          config: {
            session: id,
            request: body,
            model: registeredName(body, base),
            weights_hash: base.checkpoint.weightsHash,
            trainable: trainable.kind === "lora" ? trainable.lora : null,
            state,
          },
          write: (directory) => session.save(directory, { state }),
        });
        const { step, createdAt } = saved;
        return { id: saved.id, object: "checkpoint", created_at: unixSeconds(createdAt), kind, step, session: id };
      }),
    remove: (id) => pool.remove(id),
    sweep: () => pool.sweep(),
    close: () => pool.close(),
  };
}
