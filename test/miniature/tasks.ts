/** The corpus of the miniature: questions with solutions and explanations, the same for the same seed for ever. */
import { between, randomFrom } from "../bench/random.ts";
import { type Chain, chainText, type OperatorFamily, randomChain, solve } from "./chain.ts";
import { STYLE_SHARES, STYLES, type Style, writeExplanation } from "./explanation.ts";

export interface Task {
  question: string;
  /** One digit. */
  solution: string;
  explanation: string;
  style: Style;
  /** Operations in the question. */
  difficulty: number;
}

/** Train and held-out questions never coincide, whatever the seeds: the question itself decides. */
export type Split = "train" | "held_out";

export interface TaskOptions {
  seed: number;
  split?: Split;
  /** Fewest and most operations, both included; [4, 6] is the main task. */
  difficulty?: readonly [least: number, most: number];
  /** Part of easy documents among them: one or two operations, in clean steps. Without any, single steps are never learnt. */
  easyShare?: number;
  operators?: OperatorFamily;
  /** Only this style, instead of the mixture. */
  style?: Style;
}

/** Without end. */
export function* generateTasks(options: TaskOptions): Generator<Task, never> {
  const { seed, split = "train", difficulty = [4, 6], easyShare = 0, operators = "plain", style } = options;
  const next = randomFrom(seed);
  while (true) {
    const easy = next() < easyShare;
    const [least, most] = easy ? EASY : difficulty;
    const chain = chainOf(split, () => randomChain(next, between(next, least, most), operators));
    const chosen = easy ? "clean" : (style ?? randomStyle(next));
    yield {
      question: chainText(chain),
      solution: String(solve(chain)),
      explanation: writeExplanation(chain, chosen, next),
      style: chosen,
      difficulty: chain.operations.length,
    };
  }
}

export function takeTasks(count: number, options: TaskOptions): Task[] {
  const tasks = generateTasks(options);
  return Array.from({ length: count }, () => tasks.next().value);
}

const EASY = [1, 2] as const;

function chainOf(split: Split, draw: () => Chain): Chain {
  while (true) {
    const chain = draw();
    if (splitOf(chainText(chain)) === split) return chain;
  }
}

function randomStyle(next: () => number): Style {
  let left = next();
  for (const style of STYLES) {
    left -= STYLE_SHARES[style];
    if (left < 0) return style;
  }
  // The shares add up to 1 but for rounding.
  return STYLES.at(-1) as Style;
}

/** One question in so many is held out. */
const HELD_OUT = 8;
/** Another seed is another split: all models of a comparison must share it. */
const SPLIT_SEED = 1;

export function splitOf(question: string, seed = SPLIT_SEED): Split {
  return hash(question, seed) % HELD_OUT === 0 ? "held_out" : "train";
}

/** FNV-1a, then murmur3's last step: the low bits of FNV alone depend on the low bits of the characters only. */
function hash(text: string, seed: number): number {
  let h = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
