import type { Command } from "commander";
import { nameOf } from "../../api/models/named.ts";
import { fixed, seconds } from "../../numbers.ts";
import { sanitise } from "../../sanitise.ts";
import type { CliContext } from "../context.ts";
import { CliError } from "../errors.ts";
import { resolveTexts, type Texts } from "../input.ts";
import { integer, number } from "../options.ts";
import type { ChoiceBody, ExplanationBody } from "../server/types.ts";
import { formatTable } from "../terminal/table.ts";
import { chooseModel } from "./models-of-server.ts";

interface ExplainOptions extends Texts {
  teacher?: string;
  n: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  maxTokens?: number;
  seed?: number;
  rankBy?: string;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  $ preceptor explain -q "What is 17 * 23?" -s "391"
  $ preceptor explain --teacher smol -q @question.txt -s @solution.txt --seed 7
  $ preceptor explain -q "What is 17 * 23?" -s 391 -n 8 --rank-by smol     # best of eight by the student's reward
  $ echo '{"question": "What is 17 * 23?", "solution": "391"}' | preceptor explain --json
`;

export function addExplain(program: Command, context: () => CliContext): void {
  program
    .command("explain")
    .summary("a teacher connects a question with its solution, streamed to the terminal")
    .description(
      "Ask a teacher of the running server to explain how a question leads to its solution. Texts: as given, @file, or - for standard input.",
    )
    .option("-q, --question <text>", "the question")
    .option("-s, --solution <text>", "its solution")
    .option("-t, --teacher <id>", "registered teacher (default: the only one)")
    .option("-n <count>", "number of explanations", integer(1, 128), 1)
    .option("--temperature <t>", "sampling temperature (server default 0.7)", number(0, 100))
    .option("--top-p <p>", "nucleus sampling", number(0, 1))
    .option("--top-k <k>", "sample among the k likeliest tokens only", integer(0, 1_000_000))
    .option("--max-tokens <count>", "longest explanation in tokens", integer(1, 10_000_000))
    .option("--seed <seed>", "same seed, same text", integer(0, Number.MAX_SAFE_INTEGER))
    .option("--rank-by <student>", "score every explanation by this student and name the best")
    .option("--json", "print the whole resource as JSON instead of the text")
    .addHelpText("after", EXAMPLES)
    .action((options: ExplainOptions) => explain(options, context()));
}

async function explain(options: ExplainOptions, context: CliContext): Promise<void> {
  const fields = ["question", "solution"] as const;
  const texts = await resolveTexts(options, fields, fields, context);
  const client = context.client();
  const teacher = await chooseModel(client, "teacher", options.teacher, context.signal);
  const body = {
    teacher,
    question: texts.question,
    solution: texts.solution,
    n: options.n,
    temperature: options.temperature,
    top_p: options.topP,
    top_k: options.topK,
    max_tokens: options.maxTokens,
    seed: options.seed,
    ...(options.rankBy ? { rank_by: { student: options.rankBy } } : {}),
    stream: true,
  };
  const started = performance.now();
  const live = !options.json && options.n === 1;
  let endsWithNewline = true;
  let result: ExplanationBody | undefined;
  for await (const event of client.events("/v1/explanations", { body, signal: context.signal })) {
    const data = JSON.parse(event.data) as { index?: number; delta?: string; explanation?: ExplanationBody };
    if (event.event === "explanation.delta" && live && data.delta) {
      context.out(sanitise(data.delta));
      endsWithNewline = data.delta.endsWith("\n");
    }
    if (event.event === "explanation.completed" && data.explanation) result = data.explanation;
  }
  if (!endsWithNewline) context.out("\n");
  if (!result) throw new CliError("The stream ended before the explanation was complete; the server's log says why.");
  if (options.json) context.out(`${JSON.stringify(result, null, 2)}\n`);
  else {
    if (!live) context.out(result.choices.map((choice) => choiceBlock(choice, context)).join("\n"));
    if (options.rankBy) context.out(`\n${ranking(result, context)}\n`);
    context.note(`${context.noteStyle.dim(summary(result, performance.now() - started))}\n`);
  }
  if (result.status !== "completed") throw new CliError(`The explanation ended with status ${result.status}.`);
}

function choiceBlock(choice: ChoiceBody, { outStyle }: CliContext): string {
  const text = sanitise(choice.explanation);
  const cut = choice.finish_reason === "stop" ? "" : ` (${choice.finish_reason})`;
  return `${outStyle.bold(`── ${choice.index}${cut}`)}\n${text}${text.endsWith("\n") ? "" : "\n"}`;
}

function ranking(result: ExplanationBody, { outStyle }: CliContext): string {
  const right = (title: string) => ({ title, align: "right" as const });
  const ranked = [...result.choices].sort((a, b) => reward(b) - reward(a));
  return formatTable(
    [right("choice"), right("reward"), right("solution"), right("kl"), { title: "" }],
    ranked.map((choice) => [
      String(choice.index),
      fixed(choice.score?.reward),
      fixed(choice.score?.solution.reward),
      fixed(choice.score?.kl?.reward),
      choice.index === result.best ? outStyle.green("← best") : "",
    ]),
  );
}

function reward(choice: ChoiceBody): number {
  return choice.score?.reward ?? Number.NEGATIVE_INFINITY;
}

function summary(result: ExplanationBody, milliseconds: number): string {
  const reasons = [...new Set(result.choices.map((choice) => choice.finish_reason))].join(", ");
  const rate = (result.usage.completion_tokens / milliseconds) * 1000;
  return `${result.id} · ${nameOf(result.teacher)} · ${reasons} · ${result.usage.completion_tokens} tokens in ${seconds(milliseconds)} (${rate.toFixed(1)} tok/s) · seed ${result.sampling.seed}`;
}
