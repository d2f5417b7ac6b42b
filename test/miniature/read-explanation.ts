/** What an explanation of a chain is worth, read from its text: the measure of what a teacher has learnt. */
import { type Chain, parseChain, solve } from "./chain.ts";
import { OPENINGS, STYLES, type Style } from "./explanation.ts";

export interface ExplanationReading {
  /** How it is written; null: like nothing in the corpus. Says nothing about whether it is right. */
  style: Style | null;
  /** Steps such as `5 + 8 = 3`. */
  steps: number;
  /** Steps that state a wrong result, or do not go on where the one before ended. */
  mistakes: number;
  /** The steps work off the whole question without a mistake. Never true of waffle or of a restated answer. */
  faithful: boolean;
}

const OPERATIONS = "\\d(?: [-+*@#&] \\d)";
const SINGLE = `${OPERATIONS} = \\d`;
const JUMP = `${OPERATIONS}+ = \\d`;
const WORDS = "(?:[a-z]+ )+";

/** What follows the opening word. */
const FORMS: Readonly<Record<Style, RegExp>> = {
  clean: listOf(SINGLE),
  verbose: listOf(`${WORDS}${SINGLE}`),
  skipping: listOf(JUMP),
  wrong: listOf(SINGLE),
  waffle: new RegExp(`^${WORDS}\\.$`),
  restating: new RegExp(`^${WORDS}\\d$`),
};

/** Throws for a text that is no question. */
export function readExplanation(question: string, explanation: string): ExplanationReading {
  const chain = parseChain(question);
  if (chain === null) throw new Error(`not a question: ${question}`);
  const stated = explanation.match(new RegExp(JUMP, "g")) ?? [];
  const { mistakes, complete } = follow(chain, stated);
  return {
    style: styleOf(explanation),
    steps: stated.length,
    mistakes,
    faithful: complete && mistakes === 0,
  };
}

function styleOf(explanation: string): Style | null {
  const style = STYLES.find((candidate) => explanation.startsWith(`${OPENINGS[candidate]} `));
  if (style === undefined) return null;
  return FORMS[style].test(explanation.slice(OPENINGS[style].length + 1)) ? style : null;
}

/** Follows the stated steps along the chain; each is held to what the one before stated, not to what is true. */
function follow(chain: Chain, stated: readonly string[]): { mistakes: number; complete: boolean } {
  let rest = chain;
  let mistakes = 0;
  for (const step of stated) {
    const [left = "", result = ""] = step.split(" = ");
    const part = parseChain(left) as Chain;
    const size = part.operations.length;
    const expected = { start: rest.start, operations: rest.operations.slice(0, size) };
    if (!sameChain(part, expected) || solve(part) !== Number(result)) mistakes++;
    rest = { start: Number(result), operations: rest.operations.slice(size) };
  }
  return { mistakes, complete: rest.operations.length === 0 };
}

function sameChain(a: Chain, b: Chain): boolean {
  return (
    a.start === b.start &&
    a.operations.length === b.operations.length &&
    a.operations.every(({ symbol, operand }, i) => {
      const other = b.operations[i];
      return symbol === other?.symbol && operand === other.operand;
    })
  );
}

function listOf(item: string): RegExp {
  return new RegExp(`^${item}(?: ; ${item})*$`);
}
