import * as library from "@huggingface/jinja";
import { MAX_RENDERED_CHARS } from "./limits.ts";

/** A parsed template, ready to run with its variables. */
export type TemplateProgram = (variables: Readonly<Record<string, unknown>>) => string;

/** The parts of the library used here; its declarations of the first two do not resolve in an ES module. */
const { Environment, Interpreter, Template } = library as unknown as {
  Environment: new () => { set(name: string, value: unknown): void };
  Interpreter: new (
    environment: unknown,
  ) => {
    run(program: unknown): RuntimeValue;
    evaluate(statement: unknown, environment: unknown): RuntimeValue;
  };
  Template: new (source: string) => { parsed: unknown; render(variables: Record<string, unknown>): string };
};

interface RuntimeValue {
  value: unknown;
}

/**
 * The interpreter with a bound on every value it makes. Near V8's largest strings and arrays some built-in functions do
 * not throw but end the whole process.
 */
class BoundedInterpreter extends Interpreter {
  override evaluate(statement: unknown, environment: unknown): RuntimeValue {
    const result = super.evaluate(statement, environment);
    const { value } = result;
    if (typeof value === "string" && value.length > MAX_RENDERED_CHARS) {
      throw new Error(`a text of more than ${MAX_RENDERED_CHARS} characters`);
    }
    if (Array.isArray(value) && value.length > MAX_ENTRIES) {
      throw new Error(`a list of more than ${MAX_ENTRIES} entries`);
    }
    return result;
  }
}

const MAX_ENTRIES = 10_000_000;

/** Templates count messages, not more. */
const MAX_RANGE = 100_000;

/** `strftime_now` exists only inside the library's own environment. */
const now = new Template("{{ strftime_now(format) }}");

/** What Transformers gives every template, with a bounded `range`. */
const GLOBALS: Readonly<Record<string, unknown>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  range,
  raise_exception(message: unknown): never {
    throw new Error(String(message));
  },
  strftime_now: (format: string) => now.render({ format }),
};

/** Throws the parser's errors; the program throws the template's. */
export function parseTemplate(source: string): TemplateProgram {
  const { parsed } = new Template(source);
  return (variables) => {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...variables, ...GLOBALS })) environment.set(name, value);
    return String(new BoundedInterpreter(environment).run(parsed).value);
  };
}

/** Python's range(stop) and range(start, stop, step). */
function range(first: number, second?: number | null, step = 1): number[] {
  const [start, stop] = typeof second === "number" ? [first, second] : [0, first];
  const count = Math.ceil((stop - start) / step);
  if (!Number.isFinite(count)) throw new Error("range() takes finite numbers and a step that is not 0");
  if (count > MAX_RANGE) throw new Error(`range() with more than ${MAX_RANGE} entries`);
  return Array.from({ length: Math.max(0, count) }, (_, i) => start + i * step);
}
