/** Metrics as TensorBoard reads them: records of event.proto, framed and checked as TFRecord files are. */
import { appendFile, mkdir } from "node:fs/promises";
import path from "node:path";
import { createWriter, type Writer } from "../graph/proto/wire.ts";

export interface EventsFile {
  append(step: number, values: Readonly<Record<string, number>>): Promise<void>;
}

/** Fields of tensorflow/core/util/event.proto and framework/summary.proto. */
const WALL_TIME = 1;
const STEP = 2;
const FILE_VERSION = 3;
const SUMMARY = 5;
const SESSION_LOG = 7;
const VALUE = 1;
const TAG = 1;
const SIMPLE_VALUE = 2;
const STATUS = 1;
const STARTED = 1;

/**
 * A file of its own for every time that a job is taken up: it begins by saying from which step, and TensorBoard drops what
 * earlier files hold beyond it. `seconds`: time of day.
 */
export async function openEventsFile(folder: string, fromStep: number, seconds: () => number): Promise<EventsFile> {
  await mkdir(folder, { recursive: true });
  const file = path.join(folder, `events.out.tfevents.${Math.floor(seconds())}.preceptor.${fromStep}`);
  const write = (step: number, fill: (w: Writer) => void): Promise<void> => {
    const event = createWriter();
    event.double(WALL_TIME, seconds());
    event.int(STEP, step);
    fill(event);
    return appendFile(file, record(event.finish()));
  };
  await write(0, (w) => w.string(FILE_VERSION, "brain.Event:2"));
  await write(fromStep + 1, (w) => w.message(SESSION_LOG, (log) => log.int(STATUS, STARTED)));
  return {
    append: (step, values) =>
      write(step, (w) =>
        w.message(SUMMARY, (summary) => {
          for (const [name, value] of Object.entries(values)) {
            summary.message(VALUE, (one) => {
              one.string(TAG, name);
              one.float(SIMPLE_VALUE, value);
            });
          }
        }),
      ),
  };
}

/** length (uint64), its check, the data, their check. */
function record(data: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(12 + data.length + 4);
  bytes.writeBigUInt64LE(BigInt(data.length), 0);
  bytes.writeUInt32LE(masked(bytes.subarray(0, 8)), 8);
  bytes.set(data, 12);
  bytes.writeUInt32LE(masked(data), 12 + data.length);
  return bytes;
}

const MASK_DELTA = 0xa282ead8;

/** CRC-32C, rotated and shifted, because a check of data that hold checks would be weak. */
function masked(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + MASK_DELTA) >>> 0;
}

/** Castagnoli's polynomial, reversed; node:zlib has only the other one. */
const POLYNOMIAL = 0x82f63b78;
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  return value;
});

export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
