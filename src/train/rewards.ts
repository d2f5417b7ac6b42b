/** What an explanation is worth: a weighted sum of rewards by name. */
import { isAllowedHost } from "../allowed-hosts.ts";
import { fail, PreceptorError } from "../errors.ts";
import { parseCompletion } from "../rlt/completion.ts";
import type { StudentFormat, TeacherFormat } from "../rlt/formats.ts";
import type { Asking, ScoringModel } from "../rlt/reading.ts";
import { type Score, scoreExplanation } from "../rlt/score.ts";
import type { RewardSpec } from "./config.ts";
import type { Completion } from "./rollout.ts";

export interface RewardInput {
  question: string;
  solution: string;
  completion: Completion;
}

export interface Rewarded {
  reward: number;
  /** Each reward before its weight: `student`, `exact`, … */
  parts: Record<string, number>;
  /** The student's view, where it is one of the rewards. */
  score: Score | null;
}

export interface RewardDeps {
  teacher: ScoringModel<TeacherFormat>;
  student: ScoringModel<StudentFormat> | null;
  temperature: number;
  allowedHosts: readonly string[];
  fetch: typeof fetch;
}

/** In the order given. Throws what a reward throws; a text that no student can read is a fault of the row. */
export async function rewardOf(
  specs: readonly RewardSpec[],
  input: RewardInput,
  deps: RewardDeps,
  asking: Asking,
): Promise<Rewarded> {
  const parts: Record<string, number> = {};
  let reward = 0;
  let score: Score | null = null;
  for (const spec of specs) {
    let value: number;
    if (spec.type === "student") {
      score = await studentReward(spec, input, deps, asking);
      value = score.reward;
    } else {
      value = await OTHERS[spec.type](spec as never, input, deps, asking);
    }
    parts[spec.type] = value;
    reward += spec.weight * value;
  }
  return { reward, parts, score };
}

/** The method's own (arXiv 2506.08388, section 3): the sampling log-probs are the teacher's, which is not run again. */
async function studentReward(
  { coefficients }: Extract<RewardSpec, { type: "student" }>,
  { question, solution, completion }: RewardInput,
  { teacher, student, temperature }: RewardDeps,
  asking: Asking,
): Promise<Score> {
  if (!student) throw fail("invalid_value", 'the reward "student" needs a student', { param: "student" });
  const { ids, logprobs, errorBounds, text } = completion;
  const input = {
    question,
    solution,
    completion: text,
    close: teacher.format.close,
    sampled: { ids, logprobs, errorBounds },
  };
  const options = {
    temperature,
    coefficients,
    estimator: "k1",
    topK: 0,
    parity: false,
    tokens: false,
    ...asking,
  } as const;
  try {
    return await scoreExplanation(student, teacher, input, options);
  } catch (error) {
    if (!(error instanceof PreceptorError) || error.code !== "context_length_exceeded") throw error;
    throw fail(
      "context_length_exceeded",
      `the student cannot read what was explained of ${JSON.stringify(question.slice(0, 80))}: ${error.message}. Lower max_completion_length, leave the row out, or register the student with a longer context_length`,
      { param: "student", cause: error },
    );
  }
}

type Other = Exclude<RewardSpec, { type: "student" }>;
const OTHERS: {
  [K in Other["type"]]: (
    spec: Extract<Other, { type: K }>,
    input: RewardInput,
    deps: RewardDeps,
    asking: Asking,
  ) => number | Promise<number>;
} = {
  exact(_, { solution, completion }, { teacher }) {
    const { thought } = parseCompletion(completion.text, teacher.format.close);
    return thought.trimEnd().endsWith(solution.trim()) ? 1 : 0;
  },
  length: ({ target_tokens: target, max_tokens: most }, { completion }) =>
    -Math.max(0, completion.ids.length - target) / Math.max(1, most - target),
  http: askServer,
};

/** `{question, solution, completion}` → `{reward}`. */
async function askServer(
  { url, timeout_seconds: seconds }: Extract<RewardSpec, { type: "http" }>,
  { question, solution, completion }: RewardInput,
  { allowedHosts, fetch }: RewardDeps,
  { signal }: Asking,
): Promise<number> {
  if (!isAllowedHost(new URL(url), allowedHosts)) {
    throw fail("model_source_not_allowed", `${new URL(url).host} is not among PRECEPTOR_ALLOWED_HOSTS`, {
      param: "rewards",
    });
  }
  const timeout = AbortSignal.timeout(seconds * 1000);
  const response = await fetch(url, {
    method: "POST",
    redirect: "error",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ question, solution, completion: completion.text }),
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  }).catch((cause: unknown) => {
    throw fail("backend_unavailable", `the reward server ${new URL(url).host} cannot be reached`, { cause });
  });
  const body = (await response.json().catch(() => null)) as { reward?: unknown } | null;
  if (response.ok && typeof body?.reward === "number" && Number.isFinite(body.reward)) return body.reward;
  throw fail(
    "backend_failed",
    `the reward server ${new URL(url).host} answered ${response.status} without a finite "reward"`,
  );
}
