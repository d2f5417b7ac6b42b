import type { ChatMessage, PromptRequest, TextPart } from "../text/text.ts";
import type { StudentFormat, TeacherFormat } from "./formats.ts";

/** Names of the fields whose byte ranges the text service reports back. */
export const THOUGHT = "thought";
export const SOLUTION = "solution";

/** The prompt after which a teacher writes its explanation: the assistant's turn begins with the solution. */
export function teacherPrompt(format: TeacherFormat, question: string, solution: string): PromptRequest {
  return {
    messages: turns(format, { question, solution: pad(solution, format.solutionPadding) }),
    assistant: withWords(format.prefix, { question, solution: pad(solution, format.solutionPadding) }),
    ...(format.chatTemplate === undefined ? {} : { chatTemplate: format.chatTemplate }),
  };
}

/** The same prompt followed by an explanation and the closing tag, to be scored under the teacher. */
export function teacherText(format: TeacherFormat, question: string, solution: string, thought: string): PromptRequest {
  const prompt = teacherPrompt(format, question, solution);
  return {
    ...prompt,
    assistant: [...(prompt.assistant ?? []), { text: thought, field: THOUGHT }, { text: format.close }],
  };
}

/**
 * The prompt that a student answers: it writes its whole turn, tags included, as it learned to. Where a format asks the question
 * in the turn itself, the turn begins with these words.
 */
export function studentPrompt(format: StudentFormat, question: string): PromptRequest {
  const [before = ""] = format.turn.split("{explanation}");
  return {
    messages: turns(format, { question }),
    ...(before.includes("{question}") ? { assistant: withWords(before, { question }) } : {}),
    ...(format.chatTemplate === undefined ? {} : { chatTemplate: format.chatTemplate }),
  };
}

/**
 * What the student reads: it saw the question only, "thinks" the explanation and answers with the solution. The end of
 * its turn is left out: nothing after the solution changes what came before.
 */
export function studentText(format: StudentFormat, question: string, solution: string, thought: string): PromptRequest {
  const [before = "", rest = ""] = format.turn.split("{explanation}");
  const [middle = "", after = ""] = rest.split("{solution}");
  const empty = thought === "";
  const parts: TextPart[] = [
    ...withWords(empty ? before.trimEnd() : before, { question }),
    { text: thought, field: THOUGHT },
    ...withWords(empty ? middle.trimStart() : middle, { question }),
    { text: pad(solution, format.solutionPadding), field: SOLUTION },
    ...withWords(after, { question }),
  ];
  return {
    messages: turns(format, { question }),
    assistant: parts,
    ...(format.chatTemplate === undefined ? {} : { chatTemplate: format.chatTemplate }),
  };
}

/** `5` and `\n\n5\n\n` are the same solution: the padding belongs to it (method.md). */
export function pad(solution: string, padding: string): string {
  const before = solution.startsWith(padding) ? "" : padding;
  const padded = before + solution;
  return padded.endsWith(padding) ? padded : padded + padding;
}

function turns(format: { system: string | null; user: string }, values: Record<string, string>): ChatMessage[] {
  const user: ChatMessage = { role: "user", content: fill(format.user, values) };
  return format.system === null ? [user] : [{ role: "system", content: fill(format.system, values) }, user];
}

/** The question and the solution are the caller's words: as fields they never match a control token. */
function withWords(template: string, values: Readonly<Record<string, string>>): TextPart[] {
  return template.split(/(\{(?:question|solution)\})/).flatMap((piece): TextPart[] => {
    const name = /^\{(question|solution)\}$/.exec(piece)?.[1];
    const value = name === undefined ? undefined : values[name];
    if (name !== undefined && value !== undefined) return [{ text: value, field: name }];
    return piece === "" ? [] : [{ text: piece }];
  });
}

/** One pass, so that a question that contains "{solution}" stays what it is. */
function fill(template: string, values: Record<string, string>): string {
  return template.replace(/\{(question|solution)\}/g, (whole, name: string) => values[name] ?? whole);
}
