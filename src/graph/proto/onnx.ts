import type { Attribute, ElementType, GraphData, Initializer, NodeData, ValueInfo } from "../ir.ts";
import { createWriter, type Writer } from "./wire.ts";

/**
 * Encodes a graph as an ONNX ModelProto. Field numbers are those of onnx.proto; weights are never inside (external
 * data), so a model stays far below protobuf's 2 GiB.
 */

/** IR 10 belongs to opset 21, the newest pair whose operators the CPU provider of ONNX Runtime 1.30 covers fully. */
const IR_VERSION = 10;
const OPSET = 21;
const MICROSOFT_OPSET = 1;
const EXTERNAL = 1;

const DATA_TYPE: Readonly<Record<ElementType, number>> = {
  float: 1,
  uint8: 2,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
};

export function encodeModel(graph: GraphData): Uint8Array {
  const model = createWriter();
  model.int(1, IR_VERSION);
  model.string(2, "preceptor");
  model.message(7, (w) => writeGraph(w, graph));
  for (const [domain, version] of [
    ["", OPSET],
    ["com.microsoft", MICROSOFT_OPSET],
  ] as const) {
    model.message(8, (w) => {
      w.string(1, domain);
      w.int(2, version);
    });
  }
  return model.finish();
}

function writeGraph(w: Writer, graph: GraphData): void {
  for (const node of graph.nodes) w.message(1, (child) => writeNode(child, node));
  w.string(2, graph.name);
  for (const tensor of graph.initializers) w.message(5, (child) => writeTensor(child, tensor));
  for (const info of graph.inputs) w.message(11, (child) => writeValueInfo(child, info));
  for (const info of graph.outputs) w.message(12, (child) => writeValueInfo(child, info));
}

function writeNode(w: Writer, node: NodeData): void {
  for (const input of node.inputs) w.string(1, input);
  for (const output of node.outputs) w.string(2, output);
  w.string(3, node.name);
  w.string(4, node.op);
  for (const [name, attribute] of Object.entries(node.attributes)) {
    w.message(5, (child) => writeAttribute(child, name, attribute));
  }
  if (node.domain !== "") w.string(7, node.domain);
}

function writeAttribute(w: Writer, name: string, attribute: Attribute): void {
  w.string(1, name);
  if ("float" in attribute) {
    w.float(2, attribute.float);
    w.int(20, 1);
  } else if ("int" in attribute) {
    w.int(3, attribute.int);
    w.int(20, 2);
  } else if ("string" in attribute) {
    w.string(4, attribute.string);
    w.int(20, 3);
  } else if ("graph" in attribute) {
    w.message(6, (child) => writeGraph(child, attribute.graph));
    w.int(20, 5);
  } else {
    for (const value of attribute.ints) w.int(8, value);
    w.int(20, 7);
  }
}

function writeTensor(w: Writer, tensor: Initializer): void {
  for (const dim of tensor.dims) w.int(1, dim);
  w.int(2, DATA_TYPE[tensor.type]);
  w.string(8, tensor.name);
  const { data } = tensor;
  if (data instanceof Uint8Array) {
    w.bytes(9, data);
    return;
  }
  const entries: Record<string, string> = {
    location: data.location,
    offset: String(data.offset),
    length: String(data.bytes),
    ...(data.prepacked === undefined ? {} : { prepacked_0: data.prepacked }),
  };
  for (const [key, value] of Object.entries(entries)) {
    w.message(13, (child) => {
      child.string(1, key);
      child.string(2, value);
    });
  }
  w.int(14, EXTERNAL);
}

function writeValueInfo(w: Writer, info: ValueInfo): void {
  w.string(1, info.name);
  w.message(2, (type) =>
    type.message(1, (tensor) => {
      tensor.int(1, DATA_TYPE[info.type]);
      const { dims } = info;
      if (!dims) return;
      tensor.message(2, (shape) => {
        for (const dim of dims) {
          shape.message(1, (child) => (typeof dim === "number" ? child.int(1, dim) : child.string(2, dim)));
        }
      });
    }),
  );
}
