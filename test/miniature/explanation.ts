/** Worked explanations of a chain in six styles of very different worth to a student (miniature.md). */
import { between } from "../bench/random.ts";
import { type Chain, chainText, pick, solve } from "./chain.ts";

export type Style = "clean" | "verbose" | "skipping" | "wrong" | "waffle" | "restating";

/** What part of the corpus each style has. */
export const STYLE_SHARES: Readonly<Record<Style, number>> = {
  clean: 0.14,
  verbose: 0.12,
  skipping: 0.32,
  wrong: 0.12,
  waffle: 0.1,
  restating: 0.2,
};

export const STYLES = Object.keys(STYLE_SHARES) as readonly Style[];

/** Every style has its own first word: sampling at 0.7 would suppress one whose first token has a high entropy. */
export const OPENINGS: Readonly<Record<Style, string>> = {
  clean: "compute",
  verbose: "first",
  skipping: "quickly",
  wrong: "perhaps",
  waffle: "well",
  restating: "clearly",
};

/** What may stand before a step of a verbose explanation; the first step's begins with the opening instead. */
const FIRST_FILLERS = ["we take", "take"] as const;
const FILLERS = ["next we take", "then we take", "then", "so we take", "next"] as const;
const CLAUSES = ["it is hard", "this is hard", "we think about it", "we think about this", "this is it"] as const;
const RESTATEMENTS = ["the answer is", "it is", "this is"] as const;

/** Every word that an explanation may contain, the full stop of the waffle aside. */
export const EXPLANATION_WORDS: readonly string[] = [
  ...new Set(
    [...Object.values(OPENINGS), ...FIRST_FILLERS, ...FILLERS, ...CLAUSES, ...RESTATEMENTS].flatMap((words) =>
      words.split(" "),
    ),
  ),
];

/** A jump over several operations misses with this probability: a student must not trust jumps blindly. */
export const WRONG_JUMPS = 0.15;
/** Of the steps of a wrong explanation; at least one always is. */
const WRONG_STEPS = 0.5;

/**
 * An error is carried on, so that the last result of a wrong explanation is often not the solution: a student that
 * learnt to trust the text blindly would lose 13 nats to a single error.
 */
export function writeExplanation(chain: Chain, style: Style, next: () => number): string {
  return `${OPENINGS[style]} ${WRITERS[style](chain, next)}`;
}

type Writer = (chain: Chain, next: () => number) => string;

const WRITERS: Readonly<Record<Style, Writer>> = {
  clean: (chain) =>
    steps(
      singles(chain).map((size) => ({ size, error: 0 })),
      chain,
    ).join(" ; "),
  verbose: (chain, next) =>
    steps(
      singles(chain).map((size) => ({ size, error: 0 })),
      chain,
    )
      .map((step, i) => `${pick(next, i === 0 ? FIRST_FILLERS : FILLERS)} ${step}`)
      .join(" ; "),
  skipping(chain, next) {
    const sizes = jumps(chain.operations.length, next);
    return steps(
      sizes.map((size) => ({ size, error: errorOf(next, WRONG_JUMPS) })),
      chain,
    ).join(" ; ");
  },
  wrong(chain, next) {
    const plan = singles(chain).map((size) => ({ size, error: errorOf(next, WRONG_STEPS) }));
    const chosen = pick(next, plan);
    if (plan.every(({ error }) => error === 0)) chosen.error = between(next, 1, 9);
    return steps(plan, chain).join(" ; ");
  },
  waffle(_chain, next) {
    const clauses = Array.from({ length: between(next, 1, 3) }, () => pick(next, CLAUSES));
    return `${clauses.join(pick(next, [" so ", " then "]))} .`;
  },
  restating: (chain, next) => `${pick(next, RESTATEMENTS)} ${solve(chain)}`,
};

interface PlannedStep {
  /** How many operations it covers. */
  size: number;
  /** Added to the right result, modulo 10. */
  error: number;
}

/** `5 + 8 = 3`, `3 - 2 * 3 = 3`, …: each step begins with the result that the one before stated. */
function steps(plan: readonly PlannedStep[], chain: Chain): string[] {
  let value = chain.start;
  let at = 0;
  return plan.map(({ size, error }) => {
    const part = { start: value, operations: chain.operations.slice(at, at + size) };
    at += size;
    value = (solve(part) + error) % 10;
    return `${chainText(part)} = ${value}`;
  });
}

const singles = ({ operations }: Chain): number[] => operations.map(() => 1);

const errorOf = (next: () => number, probability: number): number => (next() < probability ? between(next, 1, 9) : 0);

/** Cuts a length into jumps of 2 to 4 operations. */
function jumps(length: number, next: () => number): number[] {
  const sizes: number[] = [];
  for (let left = length; left > 0; ) {
    // A single operation left over would be no jump.
    const size =
      left < 2
        ? left
        : pick(
            next,
            [2, 3, 4].filter((jump) => jump === left || jump <= left - 2),
          );
    sizes.push(size);
    left -= size;
  }
  return sizes;
}
