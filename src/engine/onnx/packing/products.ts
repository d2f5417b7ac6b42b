import { createHash } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import path from "node:path";
import { PreceptorError } from "../../../errors.ts";
import { createGraph } from "../../../graph/builder.ts";
import type { Matrix } from "../../../graph/matrices.ts";
import { encodeModel } from "../../../graph/proto/onnx.ts";
import { readExternalData } from "../../../graph/proto/read.ts";
import { createWeights } from "../../../graph/weights.ts";
import type { ComputeGuard } from "../exit-guard.ts";
import { noise } from "../noise.ts";
import { createSession, type PackTarget, type Session, tensor } from "../runtime.ts";
import { located, type PackedMatrices } from "./index-file.ts";

/** A session that multiplies by each of these matrices, and nothing else. */
export interface Products {
  directory: string;
  guard?: ComputeGuard | undefined;
}

/** What a kernel made of a matrix. */
export interface PackedForm {
  /** By which ONNX Runtime finds it again: a hash of its bytes. */
  key: string;
  blobs: { offset: number; bytes: number }[];
}

/** Rows of the check: even, as some kernels compute an odd last row in another order (row-order.ts). */
const CHECK_ROWS = 4;

/** Hash of matrix · fixed noise, per matrix. */
export function digests(io: Products, piece: readonly Matrix[], matrices: PackedMatrices): Map<string, string> {
  const session = open(io, piece, matrices);
  try {
    const feeds = piece.map(({ columns }) => {
      const x = tensor("float32", [CHECK_ROWS, columns], noise(CHECK_ROWS * columns));
      return [inputOf(columns), x] as const;
    });
    const names = piece.map(({ name }) => name);
    const outputs = session.run(Object.fromEntries(feeds), names);
    return new Map(names.map((name) => [name, digest(outputs[name] as Float32Array)]));
  } finally {
    session.dispose();
  }
}

/** Loads the matrices once so that ONNX Runtime writes down what its kernels packed. `use` sees the file of the blobs. */
export async function withPackedForms(
  io: Products,
  piece: readonly Matrix[],
  matrices: PackedMatrices,
  use: (forms: ReadonlyMap<string, PackedForm>, file: string) => Promise<void>,
): Promise<void> {
  const target = { model: path.join(io.directory, "packed.onnx"), data: "packed.bin" };
  const file = path.join(io.directory, target.data);
  const entries = canPack(() => open(io, piece, matrices, target).dispose())
    ? readExternalData(await readFile(target.model))
    : new Map<string, Record<string, string>>();
  const forms = new Map<string, PackedForm>();
  for (const { name } of piece) {
    const form = packedForm(entries.get(`${name}.weight`));
    if (form) forms.set(name, form);
  }
  await use(forms, file);
  for (const written of [target.model, file]) await rm(written, { force: true });
}

/** A kernel that packs without handing over the result makes such a load fail; then nothing is packed ahead. */
function canPack(load: () => void): boolean {
  try {
    load();
    return true;
  } catch (error) {
    if (error instanceof PreceptorError && error.code === "engine_failed") return false;
    throw error;
  }
}

/** `prepacked_<n>` is `key|offset;length;checksum|…`. Absent where this machine has no kernel that packs. */
function packedForm(entries: Readonly<Record<string, string>> = {}): PackedForm | null {
  const [, value] = Object.entries(entries).find(([entry]) => entry.startsWith("prepacked")) ?? [];
  if (value === undefined) return null;
  const [key = "", ...blobs] = value.split("|");
  return {
    key,
    blobs: blobs.map((blob) => {
      const [offset = 0, bytes = 0] = blob.split(";").map(Number);
      return { offset, bytes };
    }),
  };
}

function open(io: Products, piece: readonly Matrix[], matrices: PackedMatrices, packTo?: PackTarget): Session {
  const g = createGraph("products");
  const weights = createWeights(g, { tensors: {} }, located(io.directory, matrices));
  const widths = [...new Set(piece.map(({ columns }) => columns))];
  const inputs = new Map(widths.map((columns) => [columns, g.input(inputOf(columns), "float", ["N", columns])]));
  for (const matrix of piece) g.output(weights.product(inputs.get(matrix.columns)!, matrix, matrix.name));
  return createSession(encodeModel(g.build()), {
    threads: 1,
    device: "cpu",
    ...(io.guard ? { guard: io.guard } : {}),
    ...(packTo ? { packTo } : {}),
  });
}

const inputOf = (columns: number): string => `x.${columns}`;

const digest = ({ buffer, byteOffset, byteLength }: Float32Array): string =>
  createHash("sha256")
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest("hex");
