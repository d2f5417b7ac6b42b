/**
 * Protocol buffers, reading side: where the initializers of an ONNX model lie. Field numbers are those of onnx.proto;
 * everything else is skipped. The files are ONNX Runtime's own, so a damaged one is a failure, not an attack.
 */
import { fail } from "../../errors.ts";

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** ModelProto.graph, GraphProto.initializer, TensorProto.{name, external_data}, StringStringEntryProto.{key, value} */
const GRAPH = 7;
const INITIALIZER = 5;
const NAME = 8;
const EXTERNAL_DATA = 13;
const KEY = 1;
const VALUE = 2;

/** Per initializer of the main graph its `external_data` entries: `location`, `offset`, `length`, `prepacked_0`, … */
export function readExternalData(model: Uint8Array): Map<string, Record<string, string>> {
  const out = new Map<string, Record<string, string>>();
  for (const graph of messages(model, GRAPH)) {
    for (const tensor of messages(graph, INITIALIZER)) {
      const entries = [...messages(tensor, EXTERNAL_DATA)].map((entry) => [text(entry, KEY), text(entry, VALUE)]);
      out.set(text(tensor, NAME), Object.fromEntries(entries));
    }
  }
  return out;
}

const decoder = new TextDecoder();

function text(message: Uint8Array, field: number): string {
  const [bytes] = messages(message, field);
  return decoder.decode(bytes);
}

/** Strings, bytes and messages of one field, in order. */
function* messages(message: Uint8Array, wanted: number): Generator<Uint8Array> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw damaged();
      // Exact below 2⁵³; no length comes near, and larger numbers are only skipped.
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const [field, kind] = [Math.floor(tag / 8), tag % 8];
    if (kind === VARINT) varint();
    else if (kind === FIXED64) at += 8;
    else if (kind === FIXED32) at += 4;
    else if (kind === LENGTH_DELIMITED) {
      const length = varint();
      if (at + length > message.length) throw damaged();
      if (field === wanted) yield message.subarray(at, at + length);
      at += length;
    } else throw damaged();
  }
  if (at > message.length) throw damaged();
}

const damaged = (): Error => fail("engine_failed", "ONNX Runtime wrote a model that cannot be read; check the disk");
