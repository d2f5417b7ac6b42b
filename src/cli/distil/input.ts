/** The questions of a command: a file of the user's, read and checked as an upload is. */
import path from "node:path";
import { createFileArtifacts } from "../../artifacts/files.ts";
import { collectRows } from "../../datasets/collect.ts";
import { type Dataset, folderOf, openDatasetFiles } from "../../datasets/dataset.ts";
import { FILE_FORMATS, type FileFormat, readFileRows } from "../../datasets/upload.ts";
import { PreceptorError } from "../../errors.ts";
import { CliError, usage } from "../errors.ts";

/** Its rows are kept in `folder`; its id is the hash of what it holds. Faults are named by line. */
export async function readQuestions(
  file: string,
  format: FileFormat | undefined,
  folder: string,
  signal: AbortSignal,
): Promise<Dataset> {
  const artifacts = createFileArtifacts({ directory: folder });
  const staged = await artifacts.stage();
  try {
    const hints = { format, filename: path.basename(file), contentType: undefined };
    const { rows, unit } = await readFileRows(file, hints, { signal, maxBytes: Number.POSITIVE_INFINITY });
    const head = await collectRows(rows, staged, { param: "file", unit, signal });
    await staged.place(folderOf(head.contentHash));
    return await openDatasetFiles(artifacts, { ...head, id: head.contentHash });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") throw usage(`${file} cannot be read: there is no such file.`);
    if (code === "EISDIR" || code === "EACCES") throw usage(`${file} cannot be read (${code}).`);
    if (!(error instanceof PreceptorError)) throw error;
    if (error.param === "format")
      throw usage(`${file}: its name does not say what it is; give --format ${FILE_FORMATS.join(", ")}.`);
    throw new CliError(`${file}: ${error.message}`, undefined, error);
  } finally {
    await staged.discard();
  }
}
