/**
 * Where files lie that others refer to by what they contain: datasets now, checkpoints and exports later. A folder is
 * written aside and put in place by one rename, so that nobody ever sees half of one. Small, so that an object store can
 * stand behind it too.
 */

export interface ArtifactStore {
  /** A new folder that nobody else sees. Whoever has it places or discards it. */
  stage(): Promise<StagedFolder>;
  /** undefined: there is no such file. */
  stat(key: string): Promise<ArtifactStat | undefined>;
  /** Bytes [from, to); fewer where the file ends earlier. Throws `ArtifactMissing`. */
  read(key: string, from: number, to: number): Promise<Buffer>;
  /** The same as a stream of pieces. */
  stream(key: string, from?: number, to?: number): AsyncIterable<Buffer>;
  /** The folder and what is in it; nothing happens where there is none. */
  remove(folder: string): Promise<void>;
}

export interface StagedFolder {
  create(name: string): Promise<ArtifactWriter>;
  stream(name: string): AsyncIterable<Buffer>;
  read(name: string, from: number, to: number): Promise<Buffer>;
  /** Where the file lies meanwhile, for readers that go to and fro in it. */
  path(name: string): string;
  removeFile(name: string): Promise<void>;
  /** Moves it to `folder`; what lies there already has the same contents and is left, unless it is not whole. */
  place(folder: string): Promise<void>;
  /** Nothing of it stays; after `place` there is nothing to do. */
  discard(): Promise<void>;
}

export interface ArtifactWriter {
  /** Throws `insufficient_storage` when the disk is full. */
  write(bytes: Uint8Array): Promise<void>;
  /** All of it is on disk. */
  close(): Promise<void>;
}

export interface ArtifactStat {
  bytes: number;
  /** Another one after any change, as far as the store can tell without reading. */
  version: string;
}

export class ArtifactMissing extends Error {}
