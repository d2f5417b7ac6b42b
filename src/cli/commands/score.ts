import { type Command, Option } from "commander";
import { nameOf } from "../../api/models/named.ts";
import { fixed } from "../../numbers.ts";
import { sanitiseLine } from "../../sanitise.ts";
import type { CliContext } from "../context.ts";
import { CliError, usage } from "../errors.ts";
import { resolveTexts, type Texts } from "../input.ts";
import { integer, number } from "../options.ts";
import type { ExplanationBody, ScoreBody, ScoresBody } from "../server/types.ts";
import { scoreSummary } from "../terminal/score-summary.ts";
import { scoreView } from "../terminal/score-view.ts";
import { formatTable } from "../terminal/table.ts";
import { chooseModel } from "./models-of-server.ts";

interface ScoreOptions extends Texts {
  from?: string;
  choice: number;
  student?: string;
  teacher?: string;
  kl?: string;
  k?: number;
  temperature?: number;
  view?: boolean;
  baseline?: boolean;
  progress?: boolean;
  parity?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  $ preceptor score --view --teacher smol -q "What is 17 * 23?" -s "391" -e "17 * 20 is 340, 17 * 3 is 51; 340 + 51 = 391."
  $ preceptor score --view --baseline --from expl_…            # an explanation the server has written
  $ preceptor score -q @q.txt -s @s.txt -e @explanation.txt    # without --teacher: no KL, the solution's part alone
  $ preceptor score --from expl_… --kl topk_tail --json

In colours: what the student saw coming keeps the terminal's own colours, what surprised it is marked from olive to red.
Without colours (NO_COLOR, a pipe) --view prints one table row per token.
`;

export function addScore(program: Command, context: () => CliContext): void {
  program
    .command("score")
    .summary("how well a student follows an explanation to the solution")
    .description(
      "Score an explanation by the student's reward on the running server. Texts: as given, @file, or - for standard input.",
    )
    .option("-q, --question <text>", "the question")
    .option("-s, --solution <text>", "its solution")
    .option("-e, --explanation <text>", "the explanation, clean text")
    .option("--completion <text>", "instead of --explanation: raw teacher output with its closing tag")
    .option("--from <expl_…>", "take question, solution, explanation and teacher from a stored explanation")
    .option("--choice <index>", "which of its choices", integer(0, 127), 0)
    .option("--student <id>", "registered student (default: the only one)")
    .option("-t, --teacher <id>", "registered teacher, for the KL term")
    .addOption(new Option("--kl <estimator>", "KL estimator").choices(["k1", "k3", "full", "topk_tail"]))
    .option("--k <count>", "k of topk_tail", integer(1, 256))
    .option("--temperature <t>", "temperature of all log-probs (server default 0.7)", number(0.01, 100))
    .option("--view", "show the student's surprise token by token")
    .option("--baseline", "also score the solution without any explanation")
    .option("--progress", "also show the student's belief in the solution while it reads")
    .option("--parity", "the reference implementation's numbers for an empty explanation")
    .option("--json", "print the API's answer")
    .addHelpText("after", EXAMPLES)
    .action((options: ScoreOptions) => score(options, context()));
}

async function score(options: ScoreOptions, context: CliContext): Promise<void> {
  if (options.explanation !== undefined && options.completion !== undefined) {
    throw usage("--explanation and --completion say the same thing twice; give one of them.");
  }
  const client = context.client();
  const { texts, teacher } = options.from
    ? await storedTexts(options.from, options, context)
    : { texts: await givenTexts(options, context), teacher: options.teacher };
  const student = await chooseModel(client, "student", options.student, context.signal);
  const include = [
    ...(options.view || options.json ? ["tokens"] : []),
    ...(options.baseline ? ["baseline"] : []),
    ...(options.progress ? ["progress"] : []),
  ];
  const answer = await client.json<ScoresBody>("POST", "/v1/scores", {
    signal: context.signal,
    body: {
      student,
      teacher,
      items: [texts],
      temperature: options.temperature,
      ...(options.kl ? { kl: { estimator: options.kl, k: options.k } } : {}),
      ...(options.parity ? { parity: true } : {}),
      ...(include.length > 0 ? { include } : {}),
    },
  });
  const item = answer.data[0];
  if (!item) throw new CliError("The server answered without a score; its log says why.");
  if (item.object === "error") throw new CliError(item.error.message);
  if (options.json) context.out(`${JSON.stringify(answer, null, 2)}\n`);
  else context.out(`${render(item, texts, options, context)}\n`);
}

function render(item: ScoreBody, texts: Texts, options: ScoreOptions, { outStyle }: CliContext): string {
  const explanation = texts.explanation ?? texts.completion ?? "";
  const parts = [
    options.view
      ? scoreView(item, { explanation, solution: item.solution.text ?? texts.solution ?? "" }, outStyle)
      : "",
    item.progress ? progressTable(item.progress, explanation) : "",
    scoreSummary(item, outStyle),
  ];
  return parts.filter((part) => part !== "").join("\n\n");
}

/** Widest piece of explanation shown beside each step of the student's belief. */
const SNIPPET_CHARACTERS = 60;

function progressTable(progress: NonNullable<ScoreBody["progress"]>, explanation: string): string {
  const bytes = Buffer.from(explanation, "utf8");
  let start = 0;
  const rows = progress.map(({ end, solution_logprob_mean }) => {
    const text = sanitiseLine(bytes.subarray(start, end).toString("utf8").trim());
    start = end;
    const snippet = text.length > SNIPPET_CHARACTERS ? `…${text.slice(-SNIPPET_CHARACTERS)}` : text;
    return [fixed(solution_logprob_mean), String(end), snippet];
  });
  return `Belief in the solution while reading\n${formatTable(
    [{ title: "log-prob", align: "right" }, { title: "byte", align: "right" }, { title: "after" }],
    rows,
  )}`;
}

async function givenTexts(options: ScoreOptions, context: CliContext): Promise<Texts> {
  const fields = ["question", "solution", "explanation", "completion"] as const;
  const texts = await resolveTexts(options, fields, ["question", "solution"], context);
  if (texts.explanation === undefined && texts.completion === undefined) {
    throw usage(
      "--explanation missing: give the text, @file, or - for standard input; or name a stored one with --from expl_….",
    );
  }
  return texts;
}

async function storedTexts(
  id: string,
  options: ScoreOptions,
  context: CliContext,
): Promise<{ texts: Texts; teacher: string }> {
  const stored = await context
    .client()
    .json<ExplanationBody>("GET", `/v1/explanations/${encodeURIComponent(id)}`, { signal: context.signal });
  const choice = stored.choices.find(({ index }) => index === options.choice);
  if (!choice) {
    throw usage(`${id} has ${stored.choices.length} choices, counted from 0; there is no --choice ${options.choice}.`);
  }
  return {
    texts: { question: stored.question, solution: stored.solution, explanation: choice.explanation },
    teacher: options.teacher ?? nameOf(stored.teacher),
  };
}
