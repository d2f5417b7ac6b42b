/** One exchange between a user and an assistant, taken apart into question, reasoning and solution. */

export interface Exchange {
  question: string;
  solution: string;
  reasoning_trace?: string;
}

/** Bespoke-Stratos' marks, and those of R1 (where the answer simply follows). */
const STRATOS =
  /^\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>\s*<\|begin_of_solution\|>(.*?)<\|end_of_solution\|>\s*$/s;
const R1 = /^\s*<think>(.*?)<\/think>(.*)$/s;

const ROLES: Readonly<Record<string, "system" | "user" | "assistant">> = {
  system: "system",
  user: "user",
  human: "user",
  assistant: "assistant",
  gpt: "assistant",
};

/**
 * `[{from, value}]` (ShareGPT) or `[{role, content}]` (chat). A system turn is left out: training prompts students with the
 * system turn of their format. Returns a sentence where it is not one question and one answer.
 */
export function takeApart(turns: unknown): Exchange | string {
  if (!Array.isArray(turns)) return "is not a list of turns";
  const said: { role: string; text: string }[] = [];
  for (const [i, turn] of turns.entries()) {
    const read = readTurn(turn);
    if (typeof read === "string") return `turn ${i + 1} ${read}`;
    if (read.role !== "system") said.push(read);
  }
  const [first, second] = said;
  if (said.length !== 2 || first?.role !== "user" || second?.role !== "assistant") {
    const roles = said.map(({ role }) => role);
    const shown = roles.length > 6 ? `${roles.slice(0, 6).join(", ")}, …` : roles.join(", ") || "no turns";
    return `must be one question of the user and one answer of the assistant, and is: ${shown}`;
  }
  return { question: first.text, ...answerParts(second.text) };
}

/** What stands between the marks, without the white space around; an answer without marks is a solution. */
export function answerParts(answer: string): Omit<Exchange, "question"> {
  const [, thought, solution] = STRATOS.exec(answer) ?? R1.exec(answer) ?? [];
  if (thought === undefined || solution === undefined) return { solution: answer };
  const trace = thought.trim();
  return { solution: solution.trim(), ...(trace === "" ? {} : { reasoning_trace: trace }) };
}

function readTurn(turn: unknown): { role: string; text: string } | string {
  if (typeof turn !== "object" || turn === null) return "is not an object";
  const { from, value, role = from, content = value } = turn as Record<string, unknown>;
  const known = typeof role === "string" && Object.hasOwn(ROLES, role) ? ROLES[role] : undefined;
  if (known === undefined)
    return `has the role ${JSON.stringify(role)?.slice(0, 40) ?? "undefined"}; known: ${Object.keys(ROLES).join(", ")}`;
  if (typeof content !== "string") return "has no text";
  return { role: known, text: content };
}
