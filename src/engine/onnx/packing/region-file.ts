import { type FileHandle, open } from "node:fs/promises";

/** A file written in regions that sessions map one by one. */
export interface RegionFile {
  /** Offset of the next region. What is not written of it reads as zeros and takes no room on the disk. */
  reserve(bytes: number): number;
  write(offset: number, data: Uint8Array): Promise<void>;
  /** A part of another file into a region. */
  copy(from: string, start: number, bytes: number, offset: number): Promise<void>;
  /** Gives the file its full length, so that every region can be mapped. Returns it. */
  extend(): Promise<number>;
  /** Waits for the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/**
 * A page. The kernels lay packed weights out by the address they get, which must be a multiple of 64 then and now; and
 * regions that share no page are not copied with their neighbour when one is written to.
 */
const ALIGNMENT = 4096;
const CHUNK_BYTES = 4 * 2 ** 20;

export async function createRegionFile(file: string): Promise<RegionFile> {
  const handle = await open(file, "wx");
  let end = 0;
  return {
    reserve(bytes) {
      const offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
      end = offset + bytes;
      return offset;
    },
    write: (offset, data) => writeFully(handle, offset, data),
    async copy(from, start, bytes, offset) {
      for await (const [at, chunk] of chunksOf(from, start, bytes)) await writeFully(handle, offset + at, chunk);
    },
    async extend() {
      await handle.truncate(end);
      return end;
    },
    sync: () => handle.sync(),
    close: () => handle.close(),
  };
}

async function writeFully(handle: FileHandle, offset: number, data: Uint8Array): Promise<void> {
  for (let done = 0; done < data.byteLength; ) {
    const { bytesWritten } = await handle.write(data, done, data.byteLength - done, offset + done);
    done += bytesWritten;
  }
}

/** With where each chunk begins; valid until the next one. */
async function* chunksOf(file: string, start: number, bytes: number): AsyncGenerator<[number, Uint8Array]> {
  const handle = await open(file, "r");
  try {
    const buffer = new Uint8Array(Math.min(CHUNK_BYTES, bytes));
    for (let done = 0; done < bytes; ) {
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, bytes - done), start + done);
      if (bytesRead === 0) throw new Error(`${file} ended while it was being copied`);
      yield [done, buffer.subarray(0, bytesRead)];
      done += bytesRead;
    }
  } finally {
    await handle.close();
  }
}
