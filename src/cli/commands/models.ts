import type { Command } from "commander";
import { count } from "../../numbers.ts";
import { sanitiseLine } from "../../sanitise.ts";
import type { CliContext } from "../context.ts";
import { number } from "../options.ts";
import type { ModelBody } from "../server/types.ts";
import { formatTable } from "../terminal/table.ts";
import type { InspectOptions } from "./models-inspect.ts";
import { listModels } from "./models-of-server.ts";

const EXAMPLES = `
Examples:
  $ preceptor models list                                                 # what the running server has registered
  $ preceptor models inspect models/SmolLM2-135M-Instruct                 # no server needed
  $ preceptor models inspect model.gguf --json
  $ preceptor models pull hf:HuggingFaceTB/SmolLM2-135M-Instruct          # into the Hugging Face cache
  $ preceptor models init shapes/small --seed 1 --out models/small        # to be trained from scratch
  $ preceptor models temper models/teacher --temperature 0.7 --out models/teacher-t07
`;

const INSPECT_HELP = `
What each precision costs is measured once per model, by reading a page of text at each of them, and kept in the data
directory's cache. Meanwhile one precision at a time takes its room in memory and on disk. The columns, against fp32:
mean |Δ| of a token's log-probability (nats), its mean with the sign, and how often the most likely next token is the same.
`;

const TEMPER_HELP = `
Servers such as vLLM report log-probabilities at temperature 1 only. A tempered copy has its final normalisation divided
by T, so every logit comes out divided by T: its log-probabilities at temperature 1 are the original's at T.
Files that do not change are hard-linked where the file system can.
`;

export function addModels(program: Command, context: () => CliContext): void {
  const models = program
    .command("models")
    .summary("list, inspect, download, temper and initialise models")
    .addHelpText("after", EXAMPLES);
  models
    .command("list")
    .description("Teachers and students registered on the running server.")
    .option("--json", "print them as JSON")
    .action((options: { json?: boolean }) => list(options, context()));
  models
    .command("inspect <model>")
    .description(
      "What Preceptor reads in a checkpoint directory, a GGUF file or hf:org/name, or why it is refused. Needs no server.",
    )
    .option("--json", "print the facts as JSON")
    .option("--no-quality", "do not measure what each precision costs")
    .addHelpText("after", INSPECT_HELP)
    .action(async (model: string, options: InspectOptions) => {
      const { inspect } = await import("./models-inspect.ts");
      await inspect(model, options, context());
    });
  models
    .command("pull <hf:org/name>")
    .description(
      "Download a model from the Hugging Face hub (resumes, checks hashes) and print its directory. Needs no server.",
    )
    .action(async (model: string) => {
      const { pull } = await import("./models-pull.ts");
      await pull(model, context());
    });
  models
    .command("temper <directory>")
    .description("Write a copy of a checkpoint whose logits come out divided by a temperature. Needs no server.")
    .requiredOption("--temperature <t>", "the temperature, for example 0.7", number(0.01, 100))
    .requiredOption("--out <directory>", "where the copy goes; must not exist")
    .addHelpText("after", TEMPER_HELP)
    .action(async (directory: string, options: { temperature: number; out: string }) => {
      const { temper } = await import("./models-temper.ts");
      await temper(directory, options, context());
    });
  models
    .command("init <directory>")
    .description(
      "Draw the weights of a new model from a seed: takes a folder with config.json and a tokenizer, writes a checkpoint to train from scratch. Needs no server.",
    )
    .requiredOption("--out <directory>", "where the checkpoint goes; must not exist")
    .option("--seed <n>", "decides every weight", number(0, 2 ** 32 - 1), 0)
    .action(async (directory: string, { out, seed }: { out: string; seed: number }) => {
      const { initialiseCheckpoint } = await import("../../model/initialise.ts");
      context().out(`${await initialiseCheckpoint(directory, out, seed)}\n`);
    });
}

async function list(options: { json?: boolean }, context: CliContext): Promise<void> {
  const client = context.client();
  const [teachers, students] = await Promise.all([
    listModels(client, "teachers", context.signal),
    listModels(client, "students", context.signal),
  ]);
  if (options.json) {
    context.out(`${JSON.stringify({ teachers, students }, null, 2)}\n`);
    return;
  }
  const roles = new Map<string, { model: ModelBody; roles: string[] }>();
  for (const model of [...teachers, ...students]) {
    const entry = roles.get(model.id);
    if (entry) entry.roles.push(model.object);
    else roles.set(model.id, { model, roles: [model.object] });
  }
  if (roles.size === 0) {
    context.note(
      `Nothing is registered. Put a checkpoint into ./models and restart the server, or see ${client.url}/docs.\n`,
    );
    return;
  }
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [
    { title: "id" },
    right("version"),
    { title: "roles" },
    { title: "status" },
    { title: "precision" },
    right("context"),
    right("parameters"),
    { title: "model" },
  ];
  const rows = [...roles.values()].map(({ model, roles: names }) => [
    model.id,
    String(model.version),
    names.join(", "),
    model.status,
    model.precision,
    String(model.context_length ?? "–"),
    model.parameters === null ? "–" : count(model.parameters),
    sanitiseLine(model.model),
  ]);
  context.out(`${formatTable(columns, rows)}\n`);
}
