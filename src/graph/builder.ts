import type {
  Attribute,
  Dim,
  ElementType,
  ExternalData,
  GraphData,
  Initializer,
  NodeData,
  Value,
  ValueInfo,
} from "./ir.ts";
import type { Tape } from "./tape.ts";

export interface NodeOptions {
  attributes?: Readonly<Record<string, Attribute>>;
  domain?: string;
  /** Type of the outputs; that of the first input when absent. */
  type?: ElementType;
  /** Names of the outputs, in order; generated where absent, and "" leaves an optional output out. */
  names?: readonly (string | undefined)[];
}

/** Collects nodes and hands out typed values. Ops (`graph/ops/`) are functions over it. */
export interface GraphBuilder {
  /** Where ops note how gradients pass through them; null: nobody asks for gradients. */
  tape: Tape | null;
  /** The same name twice is the same input. */
  input(name: string, type: ElementType, dims: readonly Dim[]): Value;
  /** Makes a value an output of the graph, under its own name. */
  output(value: Value, dims?: readonly Dim[]): void;
  /** One output. `null` leaves an optional input out. */
  node(op: string, inputs: readonly (Value | null)[], options?: NodeOptions): Value;
  /** An op with several outputs, one type each. */
  nodes(op: string, inputs: readonly (Value | null)[], types: readonly ElementType[], options?: NodeOptions): Value[];
  /** Small constants inside the protobuf; equal ones are shared. */
  int64s(values: readonly number[]): Value;
  int64(value: number): Value;
  float(value: number): Value;
  constant(type: ElementType, dims: readonly number[], data: Uint8Array): Value;
  /** A tensor that lies in a file. The same name twice is the same tensor. */
  external(name: string, type: ElementType, dims: readonly number[], data: ExternalData): Value;
  /** The graph of a branch of `If` or of a loop's body; it sees the values of this one, and is not differentiated. */
  branch(build: (g: GraphBuilder) => readonly Value[]): GraphData;
  build(): GraphData;
}

interface Names {
  next(hint: string): string;
}

export function createGraph(name: string): GraphBuilder {
  let count = 0;
  return create(name, { next: (hint) => `${hint}_${count++}` });
}

function create(name: string, names: Names): GraphBuilder {
  const nodes: NodeData[] = [];
  const inputs = new Map<string, ValueInfo>();
  const outputs: ValueInfo[] = [];
  const initializers = new Map<string, Initializer>();
  const shared = new Map<string, Value>();

  function add(initializer: Initializer): Value {
    if (!initializers.has(initializer.name)) initializers.set(initializer.name, initializer);
    return { name: initializer.name, type: initializer.type };
  }

  const g: GraphBuilder = {
    tape: null,
    input(inputName, type, dims) {
      if (!inputs.has(inputName)) inputs.set(inputName, { name: inputName, type, dims });
      return { name: inputName, type };
    },
    output(value, dims) {
      outputs.push({ ...value, ...(dims ? { dims } : {}) });
    },
    node(op, from, options = {}) {
      const [value] = g.nodes(op, from, [options.type ?? from[0]?.type ?? "float"], options);
      return value as Value;
    },
    nodes(op, from, types, options = {}) {
      const values = types.map((type, i) => ({ name: options.names?.[i] ?? names.next(op), type }));
      nodes.push({
        op,
        domain: options.domain ?? "",
        name: `${values[0]?.name}/${op}`,
        inputs: from.map((value) => value?.name ?? ""),
        outputs: values.map((value) => value.name),
        attributes: options.attributes ?? {},
      });
      return values;
    },
    int64s: (values) =>
      g.constant("int64", [values.length], new Uint8Array(BigInt64Array.from(values, (value) => BigInt(value)).buffer)),
    int64: (value) => g.constant("int64", [], new Uint8Array(BigInt64Array.of(BigInt(value)).buffer)),
    float: (value) => g.constant("float", [], new Uint8Array(Float32Array.of(value).buffer)),
    constant(type, dims, data) {
      const key = `${type}[${dims}]${Buffer.from(data).toString("base64")}`;
      const known = shared.get(key);
      if (known) return known;
      const value = add({ name: names.next("constant"), type, dims, data });
      shared.set(key, value);
      return value;
    },
    external: (tensorName, type, dims, data) => add({ name: tensorName, type, dims, data }),
    branch(build) {
      const inner = create(names.next("branch"), names);
      for (const value of build(inner)) inner.output(value);
      return inner.build();
    },
    build: () => ({ name, nodes, inputs: [...inputs.values()], outputs, initializers: [...initializers.values()] }),
  };
  return g;
}
