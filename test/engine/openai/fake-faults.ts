/** Ways in which a fake server misbehaves when it is told to. */
import type { ServerResponse } from "node:http";

export type Fault =
  /** Answers with this status, and vLLM's error body. */
  | { kind: "status"; status: number; retryAfter?: string; message?: string }
  | { kind: "redirect"; to: string }
  /** Takes the request and never answers. */
  | { kind: "hang" }
  /** A proxy's own page, with status 200. */
  | { kind: "html" }
  /** What a stream says, or the whole answer, is no JSON. */
  | { kind: "not-json" }
  /** Of a stream, after so many tokens: the connection breaks; it ends as if all were said; an error event comes. */
  | { kind: "cut"; after: number }
  | { kind: "end"; after: number }
  | { kind: "error-event"; after: number; message: string }
  /** Ids that the vocabulary does not have. */
  | { kind: "alien-ids" }
  | { kind: "nan" }
  | { kind: "null-logprobs" }
  | { kind: "positive-logprobs" }
  /** Leaves the log-probs out. */
  | { kind: "no-logprobs" }
  /** Scores all tokens of a prompt but the last. */
  | { kind: "short-scores" };

const ALIEN = 9_999_999;
/** Stands in an object for the NaN that JSON cannot say and some servers write all the same. */
const NAN = "@NaN@";

/** JSON as the fake writes it; `NaN` where a fault put one. */
export const toJson = (value: unknown): string => JSON.stringify(value).replaceAll(`"${NAN}"`, "NaN");

type Choice = Record<string, unknown>;

/** A choice of an answer, or of a chunk, as the fault has it. */
export function mangled(fault: Fault | null, choice: Choice): Choice {
  switch (fault?.kind) {
    case "alien-ids":
      return {
        ...choice,
        ...(choice.token_ids ? { token_ids: (choice.token_ids as number[]).map(() => ALIEN) } : {}),
        ...scoresOf(choice, (scores) => scores.map((entry) => entry && { [ALIEN]: Object.values(entry)[0] })),
      };
    case "nan":
      return withLogprobs(choice, NAN);
    case "null-logprobs":
      return withLogprobs(choice, null);
    case "positive-logprobs":
      return withLogprobs(choice, 0.5);
    case "no-logprobs":
      return { ...choice, logprobs: null, ...scoresOf(choice, () => null) };
    case "short-scores":
      return { ...choice, ...scoresOf(choice, (scores) => scores.slice(0, -1)) };
    default:
      return choice;
  }
}

type Scores = (Record<string, object> | null)[];

function scoresOf(choice: Choice, change: (scores: Scores) => unknown): Choice {
  return choice.prompt_logprobs ? { prompt_logprobs: change(choice.prompt_logprobs as Scores) } : {};
}

function withLogprobs(choice: Choice, value: unknown): Choice {
  const logprobs = choice.logprobs as { token_logprobs: number[] } | null;
  return {
    ...choice,
    logprobs: logprobs && { ...logprobs, token_logprobs: logprobs.token_logprobs.map(() => value) },
    ...scoresOf(choice, (scores) =>
      scores.map(
        (entry) =>
          entry && Object.fromEntries(Object.entries(entry).map(([id, score]) => [id, { ...score, logprob: value }])),
      ),
    ),
  };
}

/** vLLM's form of an error. */
export function errorBody(
  message: string,
  code: number,
  type = "BadRequestError",
  param: string | null = null,
): object {
  return { error: { message, type, param, code } };
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(toJson(body));
}

/** Answers in place of the server; false: the fault shows only later, or in what the server says. */
export function answerFault(fault: Fault, response: ServerResponse): boolean {
  switch (fault.kind) {
    case "status": {
      const { status, retryAfter, message = "the fake server answers so because it was told to" } = fault;
      if (retryAfter !== undefined) response.setHeader("retry-after", retryAfter);
      sendJson(response, status, errorBody(message, status, status >= 500 ? "InternalServerError" : "BadRequestError"));
      return true;
    }
    case "redirect":
      response.writeHead(302, { location: fault.to }).end();
      return true;
    case "hang":
      return true;
    case "html":
      response
        .writeHead(200, { "content-type": "text/html" })
        .end("<html><body><h1>Welcome to the proxy</h1></body></html>");
      return true;
    default:
      return false;
  }
}
