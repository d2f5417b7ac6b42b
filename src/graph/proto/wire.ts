/** Protocol buffers, writing side: only the field kinds that our messages use (onnx.proto, TensorBoard's event.proto). */
export interface Writer {
  /** varint: int32, int64, enum. Negative numbers take ten bytes, as the format demands. */
  int(field: number, value: number): void;
  float(field: number, value: number): void;
  double(field: number, value: number): void;
  bytes(field: number, value: Uint8Array): void;
  string(field: number, value: string): void;
  message(field: number, write: (writer: Writer) => void): void;
  finish(): Uint8Array;
}

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;
/** Most messages are nodes of about this size; graphs grow by doubling. */
const INITIAL_BYTES = 256;

export function createWriter(): Writer {
  let buffer = new Uint8Array(INITIAL_BYTES);
  let length = 0;
  const encoder = new TextEncoder();

  function room(bytes: number): void {
    if (length + bytes <= buffer.length) return;
    const grown = new Uint8Array(Math.max(buffer.length * 2, length + bytes));
    grown.set(buffer.subarray(0, length));
    buffer = grown;
  }

  function varint(value: number): void {
    room(10);
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 0x7fn) {
      buffer[length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    buffer[length++] = Number(rest);
  }

  const tag = (field: number, kind: number): void => varint(field * 8 + kind);

  const writer: Writer = {
    int(field, value) {
      tag(field, VARINT);
      varint(value);
    },
    float(field, value) {
      tag(field, FIXED32);
      room(4);
      new DataView(buffer.buffer).setFloat32(length, value, true);
      length += 4;
    },
    double(field, value) {
      tag(field, FIXED64);
      room(8);
      new DataView(buffer.buffer).setFloat64(length, value, true);
      length += 8;
    },
    bytes(field, value) {
      tag(field, LENGTH_DELIMITED);
      varint(value.length);
      room(value.length);
      buffer.set(value, length);
      length += value.length;
    },
    string: (field, value) => writer.bytes(field, encoder.encode(value)),
    message(field, write) {
      const child = createWriter();
      write(child);
      writer.bytes(field, child.finish());
    },
    finish: () => buffer.subarray(0, length),
  };
  return writer;
}
