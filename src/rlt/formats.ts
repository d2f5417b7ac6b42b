/**
 * Formats: how a teacher is prompted and how a student answers (method.md, "What each model sees"). A teacher's format
 * and a student's combine freely. Texts of `stratos` are those of the method's reference code, typing errors included:
 * changing a letter changes every reward.
 */

/** How a teacher is prompted. Its turn begins with `prefix`; the explanation it writes ends at `close`. */
export interface TeacherFormat {
  name: string;
  /** null = no system turn. May contain `{question}` and `{solution}`. */
  system: string | null;
  user: string;
  /** Beginning of the assistant's turn, with `{solution}`. */
  prefix: string;
  /** The closing tag; sampling stops there. */
  close: string;
  /** Put before and after the solution where it does not already begin or end with it. */
  solutionPadding: string;
  /** Jinja template for checkpoints that bring none. */
  chatTemplate?: string;
}

/** How a student answers. */
export interface StudentFormat {
  name: string;
  /** null = no system turn. May contain `{question}`. */
  system: string | null;
  user: string;
  /**
   * The assistant's turn, with `{explanation}` and after it `{solution}`, once each. White space that touches an empty
   * explanation is left out: nothing at all stands between the tags then.
   */
  turn: string;
  /** What marks the parts of the turn; an explanation that contains one could smuggle in an answer of its own. */
  tags: readonly string[];
  solutionPadding: string;
  chatTemplate?: string;
}

/** What a caller may register: a preset's name or the texts of one role. */
export type FormatSpec = PresetName | CustomFormat;

/**
 * One role's own format. A teacher's turn is prefix · solution · between · explanation · close; a student's is
 * prefix · explanation · close · between · solution · suffix. Where a placeholder is written out in one of the texts it
 * stands there instead.
 */
export interface CustomFormat {
  system?: string | null | undefined;
  user?: string | undefined;
  prefix: string;
  close: string;
  between?: string | undefined;
  suffix?: string | undefined;
  solution_padding?: string | undefined;
  chat_template?: string | undefined;
}

export type PresetName = "stratos" | "r1";

const STRATOS_TEACHER_SYSTEM =
  "Your role as an assistant involves providing precise and accurate solutions before providing detailed " +
  "explanations with your full work showing your systematic thinking process leading to each solution. " +
  "Your explanations should show how you engaged in a comprehensive cycle of analysis, summarizing, " +
  "exploration, reassessment, reflection, backtracing, and iteration to develop well-considered thinking " +
  "process. Please structure your response into two main sections: Solution and Explanation. In the " +
  "Solution section, present your well-thought solution that accurately answers the question. The solution " +
  "should remain a logical, accurate, concise expression style and detail necessary step needed to reach " +
  "the conclusion, formatted as follows: <|begin_of_solution|> {final formatted, precise, and clear " +
  "solution} <|end_of_solution|>. In the Explanation section, comprehensively detail your reasoning " +
  "process using the specified format: <|begin_of_explanation|> {explanation with steps separated with " +
  "'\\n\\n'} <|end_of_explanation|> Each step should show detailed considerations leading to your solutions " +
  "such as analisying questions, summarizing relevant findings, brainstorming new ideas, verifying the " +
  "accuracy of the current steps, refining any errors, and revisiting previous steps. ";

const STRATOS_STUDENT_SYSTEM =
  "Your role as an assistant involves thoroughly exploring questions through a systematic long thinking " +
  "process before providing the final precise and accurate solutions. This requires engaging in a " +
  "comprehensive cycle of analysis, summarizing, exploration, reassessment, reflection, backtracing, and " +
  "iteration to develop well-considered thinking process. Please structure your response into two main " +
  "sections: Thought and Solution. In the Thought section, detail your reasoning process using the " +
  "specified format: <|begin_of_thought|> {thought with steps separated with '\\n\\n'} <|end_of_thought|> " +
  "Each step should include detailed considerations such as analisying questions, summarizing relevant " +
  "findings, brainstorming new ideas, verifying the accuracy of the current steps, refining any errors, " +
  "and revisiting previous steps. In the Solution section, based on various attempts, explorations, and " +
  "reflections from the Thought section, systematically present the final solution that you deem correct. " +
  "The solution should remain a logical, accurate, concise expression style and detail necessary step " +
  "needed to reach the conclusion, formatted as follows: <|begin_of_solution|> {final formatted, precise, " +
  "and clear solution} <|end_of_solution|> Now, try to solve the following question through the above " +
  "guidelines:";

const R1_TEACHER_USER =
  "Below is a question. Your answer begins with its correct solution, inside <solution> tags. After it, explain inside " +
  "<explanation> tags, step by step and in your own words, how someone who does not know the solution would arrive at " +
  "it.\n\nQuestion:\n{question}";

const TEACHER_PRESETS: Record<PresetName, TeacherFormat> = {
  stratos: {
    name: "stratos",
    system: STRATOS_TEACHER_SYSTEM,
    user: "{question}",
    prefix: "<|begin_of_solution|>{solution}<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n",
    close: "<|end_of_explanation|>",
    solutionPadding: "\n\n",
  },
  r1: {
    name: "r1",
    system: null,
    user: R1_TEACHER_USER,
    prefix: "<solution>\n{solution}\n</solution>\n\n<explanation>\n",
    close: "</explanation>",
    solutionPadding: "",
  },
};

const STUDENT_PRESETS: Record<PresetName, StudentFormat> = {
  stratos: {
    name: "stratos",
    system: STRATOS_STUDENT_SYSTEM,
    user: "{question}",
    turn: "<|begin_of_thought|>\n\n{explanation}<|end_of_thought|>\n\n<|begin_of_solution|>{solution}<|end_of_solution|>",
    tags: ["<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"],
    solutionPadding: "\n\n",
  },
  r1: {
    name: "r1",
    system: null,
    user: "{question}",
    turn: "<think>\n{explanation}\n</think>\n\n{solution}",
    tags: ["<think>", "</think>"],
    solutionPadding: "",
  },
};

export const DEFAULT_FORMAT: PresetName = "stratos";

export function teacherFormat(spec: FormatSpec): TeacherFormat {
  if (typeof spec === "string") return TEACHER_PRESETS[spec];
  return {
    name: "custom",
    system: spec.system ?? null,
    user: spec.user ?? QUESTION,
    prefix: teacherPrefix(spec),
    close: spec.close,
    solutionPadding: spec.solution_padding ?? "",
    ...(spec.chat_template === undefined ? {} : { chatTemplate: spec.chat_template }),
  };
}

export function studentFormat(spec: FormatSpec): StudentFormat {
  if (typeof spec === "string") return STUDENT_PRESETS[spec];
  const around = [spec.prefix, spec.between ?? "", spec.suffix ?? ""].flatMap(piecesOf).filter(looksLikeTag);
  return {
    name: "custom",
    system: spec.system ?? null,
    user: spec.user ?? QUESTION,
    turn: studentTurn(spec),
    tags: [...piecesOf(spec.close), ...around],
    solutionPadding: spec.solution_padding ?? "",
    ...(spec.chat_template === undefined ? {} : { chatTemplate: spec.chat_template }),
  };
}

/** A format's own words between its placeholders. */
function piecesOf(text: string): string[] {
  return text
    .split(/\{(?:question|explanation|solution)\}/)
    .map((piece) => piece.trim())
    .filter((piece) => piece !== "");
}

/** "<answer>" marks a part of the turn; "A:" or "." are words that any explanation may contain. The closing tag always counts. */
function looksLikeTag(piece: string): boolean {
  return /[<>[\]{}|]/.test(piece);
}

/** The tag that ends an explanation; without a teacher, the one of the preset the student answers in. */
export function closingTag(teacher: TeacherFormat | null, student: StudentFormat | null): string {
  return (teacher ?? TEACHER_PRESETS[student?.name === "r1" ? "r1" : "stratos"]).close;
}

/** What is wrong with a custom format for one role, as a sentence naming the field, or null. */
export function formatProblem(
  spec: CustomFormat,
  role: "teacher" | "student",
): { field: string; problem: string } | null {
  const asked = `${spec.system ?? ""}${spec.user ?? QUESTION}${spec.prefix}`;
  if (!asked.includes(QUESTION))
    return { field: "user", problem: "{question} stands in none of system, user and prefix" };
  if (spec.close.trim() === "") return { field: "close", problem: "the closing tag is empty" };
  const prompt = `${spec.system ?? ""}${spec.user ?? ""}`;
  if (prompt.includes(EXPLANATION)) return { field: "user", problem: "{explanation} belongs to the assistant's turn" };
  if (role === "teacher") {
    const prefix = teacherPrefix(spec);
    if (prefix.includes(EXPLANATION)) {
      return { field: "prefix", problem: "{explanation} may only stand at the end of a teacher's prefix" };
    }
    return null;
  }
  if (prompt.includes(SOLUTION_MARK))
    return { field: "user", problem: "a student must not see {solution} in its prompt" };
  const turn = studentTurn(spec);
  if (turn.split(EXPLANATION).length !== 2 || turn.split(SOLUTION_MARK).length !== 2) {
    return { field: "prefix", problem: "{explanation} and {solution} may each stand once" };
  }
  if (turn.indexOf(SOLUTION_MARK) < turn.indexOf(EXPLANATION)) {
    return {
      field: "between",
      problem: "{solution} must come after {explanation}: the student reads before it answers",
    };
  }
  return null;
}

const QUESTION = "{question}";
const EXPLANATION = "{explanation}";
const SOLUTION_MARK = "{solution}";

function teacherPrefix(spec: CustomFormat): string {
  const between = spec.between ?? "";
  const named = `${spec.system ?? ""}${spec.user ?? ""}${spec.prefix}${between}`.includes(SOLUTION_MARK);
  const prefix = `${spec.prefix}${named ? "" : SOLUTION_MARK}${between}`;
  return prefix.endsWith(EXPLANATION) ? prefix.slice(0, -EXPLANATION.length) : prefix;
}

function studentTurn(spec: CustomFormat): string {
  const between = spec.between ?? "";
  const suffix = spec.suffix ?? "";
  const all = spec.prefix + spec.close + between + suffix;
  const explanation = all.includes(EXPLANATION) ? "" : EXPLANATION;
  const solution = all.includes(SOLUTION_MARK) ? "" : SOLUTION_MARK;
  return spec.prefix + explanation + spec.close + between + solution + suffix;
}
