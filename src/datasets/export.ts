/** A dataset's lines in the forms that other programs train on. */

import { studentFormat } from "../rlt/formats.ts";
import { studentText } from "../rlt/prompts.ts";
import type { TextPart } from "../text/text.ts";
import type { Dataset } from "./dataset.ts";
import type { DatasetRow } from "./row.ts";

export const LINE_FORMATS = ["jsonl", "prompt-completion", "chat-jsonl", "sharegpt"] as const;
export type LineFormat = (typeof LINE_FORMATS)[number];
export const EXPORT_FORMATS = [...LINE_FORMATS, "parquet", "hub"] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/** Lines with their ends. `jsonl` gives the stored bytes, so that uploading them again gives the same content hash. */
export async function* exportLines(dataset: Dataset, format: LineFormat): AsyncGenerator<Buffer> {
  if (format === "jsonl") return yield* dataset.lines();
  for await (const row of dataset.rows()) yield Buffer.from(`${JSON.stringify(convert(row, format))}\n`);
}

function convert(row: DatasetRow, format: Exclude<LineFormat, "jsonl">): object {
  const { prompt, answer } = exchange(row);
  const { id, metadata, provenance } = row;
  const more = {
    ...(id === undefined ? {} : { id }),
    ...(metadata === undefined ? {} : { metadata }),
    ...(provenance === undefined ? {} : { provenance }),
  };
  const reply = { role: "assistant", content: answer };
  switch (format) {
    case "prompt-completion":
      // TRL's conversational form: the chat template is applied by whoever trains.
      return { prompt, completion: [reply], ...more };
    case "chat-jsonl":
      return { messages: [...prompt, reply], ...more };
    case "sharegpt": {
      const system = prompt.find(({ role }) => role === "system")?.content;
      return {
        ...(system === undefined ? {} : { system }),
        conversations: [
          { from: "human", value: row.question },
          { from: "gpt", value: answer },
        ],
        ...more,
      };
    }
  }
}

/** With reasoning: exactly what a student of the format `stratos` is prompted with and is to write. Without: the solution. */
function exchange(row: DatasetRow): { prompt: { role: string; content: string }[]; answer: string } {
  const { question, solution, reasoning_trace: trace } = row;
  if (trace === undefined) return { prompt: [{ role: "user", content: question }], answer: solution };
  const { messages, assistant = [] } = studentText(studentFormat("stratos"), question, solution, trace);
  const answer = (assistant as TextPart[]).map(({ text }) => text).join("");
  return { prompt: messages.map(({ role, content }) => ({ role, content })), answer };
}
