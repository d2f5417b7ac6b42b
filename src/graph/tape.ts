/**
 * Reverse-mode differentiation over the graph builder. While a builder has a tape, every op that touches something that
 * gradients flow to notes how they pass back through it (the rule stands beside the op, in `ops/`), and `gradients` turns
 * the notes into nodes of the same graph.
 */
import type { GraphBuilder } from "./builder.ts";
import type { Value } from "./ir.ts";
import { zerosLike } from "./ops/shape.ts";

/** From the gradients of a node's outputs to those of its inputs; only the inputs that gradients flow to are asked for. */
export type Rule = (...dOutputs: Value[]) => readonly (() => Value)[];

interface Note {
  outputs: readonly Value[];
  inputs: readonly Value[];
  rule: Rule;
}

/** Gradients by the name of the value they belong to. */
export type Gradients = Map<string, Value>;

export interface Tape {
  /** Whether gradients flow to this value. */
  needs(value: Value): boolean;
  note(note: Note): void;
  readonly notes: readonly Note[];
  /** Of everything trainable, added up over all stretches that are differentiated apart. */
  readonly trained: Gradients;
  readonly trainable: (value: Value) => boolean;
}

/** `trainable`: the values whose gradients are wanted in the end. `inputs`: others that gradients flow to. */
export function createTape(
  trainable: (value: Value) => boolean,
  inputs: readonly Value[] = [],
  trained: Gradients = new Map(),
): Tape {
  const flowing = new Set(inputs.map(({ name }) => name));
  const notes: Note[] = [];
  const needs = (value: Value): boolean => flowing.has(value.name) || trainable(value);
  return {
    needs,
    note(note) {
      for (const { name } of note.outputs) flowing.add(name);
      notes.push(note);
    },
    notes,
    trained,
    trainable,
  };
}

/** Says how gradients pass through what has just been computed. Nothing is noted without a tape, nor where no input needs them. */
export function differentiable(g: GraphBuilder, outputs: readonly Value[], inputs: readonly Value[], rule: Rule): void {
  const { tape } = g;
  if (tape && inputs.some(tape.needs)) tape.note({ outputs, inputs, rule });
}

/**
 * Adds the nodes that carry `seeds` (value → its gradient) back through everything on the builder's tape, last note first.
 * Those of trainable values end in `tape.trained`; returned are those of the tape's inputs.
 */
export function gradients(g: GraphBuilder, seeds: readonly (readonly [Value, Value])[]): Gradients {
  const { tape } = g;
  const found: Gradients = new Map();
  if (!tape) return found;
  // The backward pass is not differentiated itself.
  return withTape(g, null, () => {
    const accumulate = (value: Value, gradient: Value): void => {
      const into = tape.trainable(value) ? tape.trained : found;
      const known = into.get(value.name);
      into.set(value.name, known ? g.node("Add", [known, gradient]) : gradient);
    };
    for (const [value, gradient] of seeds) if (tape.needs(value)) accumulate(value, gradient);
    for (const { outputs, inputs, rule } of [...tape.notes].reverse()) {
      if (!outputs.some(({ name }) => found.has(name))) continue;
      const thunks = rule(...outputs.map((output) => found.get(output.name) ?? zerosLike(g, output)));
      for (const { name } of outputs) found.delete(name);
      for (const [i, input] of inputs.entries()) if (tape.needs(input)) accumulate(input, thunks[i]!());
    }
    return found;
  });
}

/**
 * A stretch whose inner values are not kept: the backward pass computes them again from `inputs` (activation checkpointing,
 * arXiv 1604.06174). Without a tape it is `build` itself.
 */
export function recomputed(
  g: GraphBuilder,
  inputs: readonly Value[],
  build: (inputs: readonly Value[]) => readonly Value[],
): readonly Value[] {
  const { tape } = g;
  if (!tape) return build(inputs);
  const outputs = withTape(g, null, () => build(inputs));
  // Noted whether or not its inputs need gradients: something inside may be trained.
  tape.note({
    outputs,
    inputs,
    rule: (...dOutputs) => {
      const inner = createTape(tape.trainable, inputs.filter(tape.needs), tape.trained);
      const found = withTape(g, inner, () => {
        const again = build(inputs);
        return gradients(
          g,
          again.map((value, i) => [value, dOutputs[i]!] as const),
        );
      });
      return inputs.map((input) => () => found.get(input.name) ?? zerosLike(g, input));
    },
  });
  return outputs;
}

/** Builds with another tape, or with none. */
export function withTape<T>(g: GraphBuilder, tape: Tape | null, work: () => T): T {
  const before = g.tape;
  g.tape = tape;
  try {
    return work();
  } finally {
    g.tape = before;
  }
}
