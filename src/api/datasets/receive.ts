/** Takes a form apart as it arrives: the file goes to disk, its fields are few and short. */
import type { StagedFolder } from "../../artifacts/store.ts";
import { fail } from "../../errors.ts";
import type { Part } from "../../http/multipart.ts";
import { datasetFormSchema } from "./schemas.ts";

/** Metadata has at most 16 pairs of 576 characters. */
const MAX_FIELD_BYTES = 64 * 1024;
const MAX_FIELDS = 32;
export const UPLOAD_FILE = "upload";

export interface Form {
  fields: ReturnType<typeof datasetFormSchema.parse>;
  file: { filename: string | undefined; contentType: string | undefined; bytes: number };
}

/** Throws `payload_too_large`, `invalid_value`, `unknown_parameter`. */
export async function receiveForm(parts: AsyncIterable<Part>, folder: StagedFolder, maxBytes: number): Promise<Form> {
  const fields = new Map<string, string>();
  let file: Form["file"] | undefined;
  for await (const part of parts) {
    if (part.name === "file") {
      if (file) throw fail("invalid_value", "send one file; make a dataset of each", { param: "file" });
      const { filename, contentType } = part;
      file = { filename: baseName(filename), contentType, bytes: await receiveFile(part.body, folder, maxBytes) };
    } else {
      if (fields.has(part.name) || fields.size >= MAX_FIELDS) {
        throw fail("invalid_value", "a field of the form is there twice, or there are too many", { param: part.name });
      }
      fields.set(part.name, await receiveField(part));
    }
  }
  const known = datasetFormSchema.parse(Object.fromEntries(fields));
  if (!file) throw fail("invalid_value", 'the form has no file: send one as the part "file"', { param: "file" });
  return { fields: known, file };
}

async function receiveFile(body: AsyncIterable<Buffer>, folder: StagedFolder, maxBytes: number): Promise<number> {
  const writer = await folder.create(UPLOAD_FILE);
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.length;
    if (bytes > maxBytes) throw tooLarge(maxBytes);
    await writer.write(piece);
  }
  await writer.close();
  return bytes;
}

export function tooLarge(maxBytes: number): Error {
  return fail(
    "payload_too_large",
    `The file is larger than ${maxBytes} bytes. Split it, or have the server's PRECEPTOR_MAX_DATASET_MB raised.`,
    { param: "file" },
  );
}

async function receiveField({ name, body }: Part): Promise<string> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of body) {
    size += piece.length;
    if (size > MAX_FIELD_BYTES) throw fail("invalid_value", `has more than ${MAX_FIELD_BYTES} bytes`, { param: name });
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString("utf8");
}

/** Some clients send a whole path; what we show and store is bounded. */
function baseName(filename: string | undefined): string | undefined {
  const base = filename?.split(/[/\\]/).at(-1)?.trim().slice(0, 200);
  return base || undefined;
}
