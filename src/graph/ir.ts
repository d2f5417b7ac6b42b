/**
 * Graphs as plain data, before they become protobuf. Names follow the ONNX operator documentation.
 */

export type ElementType = "float" | "float16" | "bfloat16" | "int32" | "int64" | "uint8" | "bool";

/** A typed edge of the graph. */
export interface Value {
  readonly name: string;
  readonly type: ElementType;
}

export type Attribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly ints: readonly number[] }
  | { readonly string: string }
  | { readonly graph: GraphData };

export interface NodeData {
  readonly op: string;
  /** "" is the ONNX domain. */
  readonly domain: string;
  readonly name: string;
  /** "" leaves an optional input out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

/** A dimension: a size, or a name for one that is known at run time only. */
export type Dim = number | string;

export interface ValueInfo {
  readonly name: string;
  readonly type: ElementType;
  /** Unknown shape when absent. */
  readonly dims?: readonly Dim[];
}

/** Bytes of a tensor in a file; mapped into memory by ONNX Runtime, never part of the protobuf. */
export interface ExternalData {
  /** Relative to the session's external data folder. */
  readonly location: string;
  readonly offset: number;
  readonly bytes: number;
  /**
   * `key|offset;length;0`: these bytes of the same file are what the kernel packs a tensor into. A CPU session packs the
   * tensor above, and where the hash of the result is `key` it maps these instead (engine/onnx/packing/stand-ins.ts).
   */
  readonly prepacked?: string;
}

export interface Initializer {
  readonly name: string;
  readonly type: ElementType;
  readonly dims: readonly number[];
  /** Little-endian bytes, or where they lie. */
  readonly data: Uint8Array | ExternalData;
}

export interface GraphData {
  readonly name: string;
  readonly nodes: readonly NodeData[];
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly initializers: readonly Initializer[];
}

export const int = (value: number): Attribute => ({ int: value });
export const float = (value: number): Attribute => ({ float: value });
export const ints = (values: readonly number[]): Attribute => ({ ints: values });
export const text = (value: string): Attribute => ({ string: value });
