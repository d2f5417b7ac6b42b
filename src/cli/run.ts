import { CommanderError } from "commander";
import { colourSettings, loadConfig } from "../config.ts";
import { PreceptorError } from "../errors.ts";
import { VERSION } from "../version.ts";
import type { CliContext, GlobalOptions } from "./context.ts";
import { CliError, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE } from "./errors.ts";
import { buildProgram, isUsageError } from "./program.ts";
import { createClient } from "./server/client.ts";
import { createStyle, wantsColour } from "./terminal/style.ts";

/** Runs one command line (`process.argv`) and returns the exit code. */
export async function runCli(argv: readonly string[]): Promise<number> {
  const interrupt = interruptible();
  let debug = false;
  const program = buildProgram(VERSION, (options) => {
    debug = options.debug ?? false;
    return createContext(options, interrupt);
  });
  for (const command of [program, ...program.commands, ...program.commands.flatMap((child) => child.commands)]) {
    command.exitOverride();
  }
  quietOnClosedPipe();
  try {
    await program.parseAsync(argv as string[]);
    return 0;
  } catch (error) {
    if (interrupt.interrupted()) return EXIT_INTERRUPTED;
    if (error instanceof CommanderError) return isUsageError(error) ? EXIT_USAGE : 0;
    report(error, debug || program.opts<GlobalOptions>().debug === true);
    return error instanceof CliError ? error.exitCode : EXIT_FAILURE;
  } finally {
    interrupt.stop();
  }
}

/** Where `preceptor serve` listens unless told otherwise. */
const DEFAULT_URL = "http://127.0.0.1:8080";

function createContext(options: GlobalOptions, interrupt: Interrupt): CliContext {
  const colour = (isTTY: boolean | undefined): boolean =>
    wantsColour({ ...colourSettings(), flag: options.color, isTTY: isTTY === true });
  return {
    out: (text) => void process.stdout.write(text),
    note: (text) => void process.stderr.write(text),
    readInput: readStandardInput,
    outStyle: createStyle(colour(process.stdout.isTTY)),
    noteStyle: createStyle(colour(process.stderr.isTTY)),
    get signal() {
      return interrupt.signal();
    },
    client() {
      const { serverUrl, apiKey } = loadConfig(undefined, { serving: false });
      const onWait = (message: string): void => void process.stderr.write(`${message}; waiting …\n`);
      return createClient({ url: options.url ?? serverUrl ?? DEFAULT_URL, apiKey, onWait });
    },
  };
}

async function readStandardInput(): Promise<string | undefined> {
  if (process.stdin.isTTY) return undefined;
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

interface Interrupt {
  /** Listens for Ctrl-C from the first call on: a command that does not ask (`serve`) handles signals itself. */
  signal(): AbortSignal;
  interrupted(): boolean;
  stop(): void;
}

/** Ctrl-C aborts the command's signal once, so that the server is told; a second one ends the process at once. */
function interruptible(): Interrupt {
  const controller = new AbortController();
  const onInterrupt = (): void => {
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED);
    controller.abort();
  };
  return {
    signal() {
      if (!process.listeners("SIGINT").includes(onInterrupt)) process.on("SIGINT", onInterrupt);
      return controller.signal;
    },
    interrupted: () => controller.signal.aborted,
    stop: () => void process.off("SIGINT", onInterrupt),
  };
}

/** `preceptor models list | head -1`: the reader may leave early, which is no failure of ours. */
function quietOnClosedPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}

function report(error: unknown, debug: boolean): void {
  const expected = error instanceof CliError || error instanceof PreceptorError;
  const message = error instanceof Error ? error.message : String(error);
  const line = expected ? message : `unexpected failure: ${message}`;
  const hint = expected || debug ? "" : " (--debug prints where)";
  process.stderr.write(`preceptor: ${line}${hint}\n`);
  if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n${causes(error)}`);
}

function causes(error: Error): string {
  return error.cause instanceof Error ? `caused by ${error.cause.stack}\n${causes(error.cause)}` : "";
}
