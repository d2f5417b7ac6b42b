import { fixed, percent } from "../../numbers.ts";
import { sanitise, sanitiseLine } from "../../sanitise.ts";
import type { ScoreBody, SolutionToken, ThoughtToken, Tokens } from "../server/types.ts";
import { coloursOf, DIVERGENCE, type HeatScale, legend, SURPRISE } from "./heat.ts";
import { type Piece, toPieces, type ViewToken } from "./pieces.ts";
import type { Style } from "./style.ts";
import { formatTable } from "./table.ts";

/** The texts that the tokens' byte offsets refer to. */
export interface ViewTexts {
  explanation: string;
  solution: string;
}

/** How many of the most surprising tokens are listed with their numbers below the coloured text. */
const LISTED_TOKENS = 8;

/** The student's surprise, token by token. Colours when the style has them, else one table row per token. */
export function scoreView(score: ScoreBody, texts: ViewTexts, style: Style): string {
  const tokens = score.tokens;
  if (!tokens) return "";
  const sections = style.colour ? [colouredThought, colouredSolution] : [plainThought, plainSolution];
  return sections
    .map((section) => section(tokens, texts, style))
    .filter((text) => text !== "")
    .join("\n\n");
}

function colouredThought({ thought }: Tokens, texts: ViewTexts, style: Style): string {
  if (thought.length === 0) return "";
  // Without a teacher there is no KL; then the student's own surprise is what can be shown.
  const withKl = thought.some((token) => token.kl !== null);
  const value = withKl ? (token: ThoughtToken) => token.kl : (token: ThoughtToken) => -token.student_logprob;
  const scale = withKl ? DIVERGENCE : { ...SURPRISE, title: "probability the student gave each explanation token" };
  return [
    style.bold("Explanation"),
    paintPieces(toPieces(withValue(thought, value), texts.explanation), scale, style),
    "",
    legend(scale, style),
    listing("hardest to swallow", worst(thought, value), thoughtColumns, thoughtRow, style),
  ].join("\n");
}

function colouredSolution({ solution }: Tokens, texts: ViewTexts, style: Style): string {
  const value = (token: SolutionToken) => -token.logprob;
  return [
    style.bold("Solution"),
    paintPieces(toPieces(withValue(solution, value), texts.solution), SURPRISE, style),
    "",
    legend(SURPRISE, style),
    listing("most surprising", worst(solution, value), solutionColumns(solution), solutionRow(solution), style),
  ].join("\n");
}

function plainThought({ thought }: Tokens): string {
  if (thought.length === 0) return "";
  return `Explanation, token by token\n${formatTable(thoughtColumns, thought.map(thoughtRow))}`;
}

function plainSolution({ solution }: Tokens): string {
  return `Solution, token by token\n${formatTable(solutionColumns(solution), solution.map(solutionRow(solution)))}`;
}

function withValue<T extends { text: string; start: number; end: number }>(
  tokens: readonly T[],
  value: (token: T) => number | null,
): ViewToken[] {
  return tokens.map((token) => ({ text: token.text, start: token.start, end: token.end, value: value(token) }));
}

function paintPieces(pieces: readonly Piece[], scale: HeatScale, style: Style): string {
  return pieces
    .map(({ text, value }) => {
      const colours = value === null ? undefined : coloursOf(scale, value);
      // A coloured newline would be invisible: it is shown as a sign, then taken.
      return colours ? style.paint(sanitise(text).replaceAll("\n", "⏎\n"), colours) : sanitise(text);
    })
    .join("");
}

function worst<T>(tokens: readonly T[], value: (token: T) => number | null): T[] {
  return tokens
    .filter((token) => value(token) !== null)
    .sort((a, b) => (value(b) ?? 0) - (value(a) ?? 0))
    .slice(0, LISTED_TOKENS);
}

function listing<T>(
  title: string,
  tokens: readonly T[],
  columns: Parameters<typeof formatTable>[0],
  row: (token: T) => string[],
  style: Style,
): string {
  if (tokens.length === 0) return "";
  return `\n${style.dim(title)}\n${formatTable(columns, tokens.map(row))}`;
}

const thoughtColumns = [
  { title: "token" },
  { title: "byte", align: "right" },
  { title: "teacher", align: "right" },
  { title: "student", align: "right" },
  { title: "kl", align: "right" },
  { title: "rank", align: "right" },
  { title: "entropy", align: "right" },
] as const;

function thoughtRow(token: ThoughtToken): string[] {
  return [
    `"${sanitiseLine(token.text)}"`,
    String(token.start),
    fixed(token.teacher_logprob),
    fixed(token.student_logprob),
    fixed(token.kl),
    token.rank === null ? "–" : String(token.rank),
    fixed(token.entropy, 2),
  ];
}

function solutionColumns(tokens: readonly SolutionToken[]) {
  const right = (title: string) => ({ title, align: "right" as const });
  return [
    { title: "token" },
    ...["byte", "log-prob", "p", "rank", "entropy"].map(right),
    ...(hasBaseline(tokens) ? [right("without explanation")] : []),
  ];
}

function solutionRow(tokens: readonly SolutionToken[]): (token: SolutionToken) => string[] {
  const baseline = hasBaseline(tokens);
  return (token) => [
    `"${sanitiseLine(token.text)}"`,
    String(token.start),
    fixed(token.logprob),
    percent(Math.exp(token.logprob)),
    token.rank === null ? "–" : String(token.rank),
    fixed(token.entropy, 2),
    ...(baseline ? [fixed(token.baseline_logprob)] : []),
  ];
}

function hasBaseline(tokens: readonly SolutionToken[]): boolean {
  return tokens.some((token) => token.baseline_logprob !== undefined);
}
