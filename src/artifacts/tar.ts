/** Archives as POSIX ustar, written while they are read: nothing is kept in memory or on disk. */

export interface TarEntry {
  /** Below 100 bytes. */
  name: string;
  bytes: number;
  modified: Date;
  read(): AsyncIterable<Uint8Array>;
}

const BLOCK = 512;
/** What eleven octal digits hold; larger sizes are written in base 256, as GNU tar and everybody since does. */
const MAX_OCTAL = 8 ** 11;

export function tar(entries: readonly TarEntry[]): { bytes: number; read(): AsyncIterable<Uint8Array> } {
  const content = entries.reduce((sum, { bytes }) => sum + BLOCK + padded(bytes), 0);
  return { bytes: content + 2 * BLOCK, read: () => write(entries) };
}

const padded = (bytes: number): number => Math.ceil(bytes / BLOCK) * BLOCK;

async function* write(entries: readonly TarEntry[]): AsyncGenerator<Uint8Array> {
  for (const entry of entries) {
    yield header(entry);
    yield* entry.read();
    yield new Uint8Array(padded(entry.bytes) - entry.bytes);
  }
  yield new Uint8Array(2 * BLOCK);
}

function header({ name, bytes, modified }: TarEntry): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number): void =>
    void block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  block.write(name, 0, 100, "utf8");
  octal(0o644, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  if (bytes < MAX_OCTAL) octal(bytes, 124, 12);
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(bytes), 128);
  }
  octal(Math.floor(modified.getTime() / 1000), 136, 12);
  block.write("        ", 148, "latin1");
  block.write("0", 156, "latin1");
  block.write("ustar\0" + "00", 257, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}
