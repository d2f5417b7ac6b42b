import { Command, CommanderError } from "commander";
import { addDistil } from "./commands/distil.ts";
import { addDoctor } from "./commands/doctor.ts";
import { addExplain } from "./commands/explain.ts";
import { addJobs } from "./commands/jobs.ts";
import { addModels } from "./commands/models.ts";
import { addOpenapi } from "./commands/openapi.ts";
import { addScore } from "./commands/score.ts";
import { addServe } from "./commands/serve.ts";
import { addTrain } from "./commands/train.ts";
import { addWorker } from "./commands/worker.ts";
import type { CliContext, GlobalOptions } from "./context.ts";

const INTRODUCTION = `Preceptor serves Reinforcement-Learned Teachers: a teacher model is given a question and its solution and writes the explanation that connects them; a student model scores how much the explanation helps.`;

const EXAMPLES = `
First steps:
  $ preceptor doctor                                             # is this machine ready?
  $ preceptor serve                                              # models in ./models are registered by themselves
  $ preceptor explain -q "What is 17 * 23?" -s "391"             # in a second terminal
  $ preceptor score --view -q "What is 17 * 23?" -s "391" -e "17 * 20 + 17 * 3 = 340 + 51 = 391."

explain, score and models list talk to a running server: --url or PRECEPTOR_URL (default http://127.0.0.1:8080), with the
key in PRECEPTOR_API_KEY where the server has one. Settings of the server come from the environment: see README.md.
Exit codes: 0 done, 1 failed, 2 called wrongly, 130 interrupted.
`;

/** The whole command line. Commands import what they need when they run, so that --help is quick. */
export function buildProgram(version: string, context: (options: GlobalOptions) => CliContext): Command {
  const program = new Command("preceptor");
  const contextOf = (): CliContext => context(program.opts<GlobalOptions>());
  program
    .description(INTRODUCTION)
    .version(version, "-V, --version", "print the version")
    .option("--url <url>", "the running server (default: PRECEPTOR_URL or http://127.0.0.1:8080)")
    .option("--color", "colour even when the output is not a terminal")
    .option("--no-color", "never colour")
    .option("--debug", "print the stack of an error")
    .addHelpText("after", EXAMPLES)
    .helpCommand("help [command]", "print the help of a command")
    .showSuggestionAfterError()
    .showHelpAfterError('("preceptor --help" and "preceptor COMMAND --help" show how it is used)');
  addServe(program);
  addWorker(program);
  addExplain(program, contextOf);
  addScore(program, contextOf);
  addDistil(program, contextOf);
  addTrain(program, contextOf);
  addJobs(program, contextOf);
  addModels(program, contextOf);
  addDoctor(program, contextOf);
  addOpenapi(program, contextOf);
  return program;
}

/** Commander's ways of ending: whether this one is an error of use (a wrong option), and not help that was asked for. */
export function isUsageError(error: unknown): error is CommanderError {
  return error instanceof CommanderError && error.exitCode !== 0;
}
