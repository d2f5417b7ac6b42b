/** Chains of digit arithmetic, worked off from left to right modulo 10: `5 + 8 - 2 * 3` is ((5 + 8) − 2) · 3 = 3. */

export interface Operation {
  symbol: string;
  operand: number;
}

export interface Chain {
  start: number;
  operations: readonly Operation[];
}

interface Operator {
  apply(value: number, operand: number): number;
  operands: readonly number[];
}

const DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const;
/** The units modulo 10: a factor that has an inverse keeps everything before it relevant. 1 would be no work. */
const UNITS = [3, 7, 9] as const;

const OPERATORS: Readonly<Record<string, Operator>> = {
  "+": { operands: DIGITS, apply: (x, y) => x + y },
  "-": { operands: DIGITS, apply: (x, y) => x - y },
  "*": { operands: UNITS, apply: (x, y) => x * y },
  "@": { operands: DIGITS, apply: (x, y) => x + 2 * y },
  "#": { operands: DIGITS, apply: (x, y) => 3 * x - y },
  "&": { operands: UNITS, apply: (x, y) => x * y + 1 },
};

/** `plain` is the task; `other` (x + 2y, 3x − y, xy + 1) is for what happens outside the training distribution. */
export type OperatorFamily = "plain" | "other";

const FAMILIES: Readonly<Record<OperatorFamily, readonly string[]>> = {
  plain: ["+", "-", "*"],
  other: ["@", "#", "&"],
};

export const SYMBOLS: readonly string[] = Object.keys(OPERATORS);

export function randomChain(next: () => number, length: number, family: OperatorFamily): Chain {
  const start = pick(next, DIGITS);
  const operations = Array.from({ length }, (): Operation => {
    const symbol = pick(next, FAMILIES[family]);
    return { symbol, operand: pick(next, operatorOf(symbol).operands) };
  });
  return { start, operations };
}

/** The value of the whole chain, one digit. */
export function solve({ start, operations }: Chain): number {
  return operations.reduce((value, { symbol, operand }) => modulo10(operatorOf(symbol).apply(value, operand)), start);
}

export function chainText({ start, operations }: Chain): string {
  return [start, ...operations.map(({ symbol, operand }) => `${symbol} ${operand}`)].join(" ");
}

/** The chain a text spells, or null. */
export function parseChain(text: string): Chain | null {
  const [start = "", ...rest] = text.split(" ");
  const operations: Operation[] = [];
  for (let i = 0; i < rest.length; i += 2) {
    const [symbol = "", operand = ""] = rest.slice(i, i + 2);
    if (!SYMBOLS.includes(symbol) || !isDigit(operand)) return null;
    operations.push({ symbol, operand: Number(operand) });
  }
  return isDigit(start) ? { start: Number(start), operations } : null;
}

export function pick<T>(next: () => number, list: readonly T[]): T {
  return list[Math.floor(next() * list.length)] as T;
}

function operatorOf(symbol: string): Operator {
  const operator = OPERATORS[symbol];
  if (operator === undefined) throw new Error(`there is no operator ${symbol}`);
  return operator;
}

/** −3 is 7. */
const modulo10 = (value: number): number => ((value % 10) + 10) % 10;

const isDigit = (text: string): boolean => /^\d$/.test(text);
