import { InvalidArgumentError } from "commander";

/** Parsers of option values; commander prints what they throw and exits 2. */
export function number(min: number, max: number): (value: string) => number {
  return (value) => {
    const parsed = Number(value);
    if (value.trim() === "" || !Number.isFinite(parsed) || parsed < min || parsed > max) {
      throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
    }
    return parsed;
  };
}

export function integer(min: number, max: number): (value: string) => number {
  const parse = number(min, max);
  return (value) => {
    const parsed = parse(value);
    if (!Number.isInteger(parsed)) throw new InvalidArgumentError("It must be a whole number.");
    return parsed;
  };
}
