import { temperCheckpoint } from "../../model/temper.ts";
import type { CliContext } from "../context.ts";

export async function temper(
  directory: string,
  options: { temperature: number; out: string },
  context: CliContext,
): Promise<void> {
  const written = await temperCheckpoint(directory, options.out, options.temperature);
  context.out(`${written}\n`);
  context.note(`Its log-probabilities at temperature 1 are those of ${directory} at ${options.temperature}.\n`);
}
