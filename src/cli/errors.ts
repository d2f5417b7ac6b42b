/** Exit codes: what went wrong with the work is 1, how the command was called is 2 (as commander's own errors are here). */
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** 128 + SIGINT, what a shell expects of a command that Ctrl-C ended. */
export const EXIT_INTERRUPTED = 130;

/** An error meant for the person at the terminal: one line that says what happened and what to do next. */
export class CliError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT_FAILURE, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "CliError";
    this.exitCode = exitCode;
  }
}

/** `throw usage("--temperature is 3; it must lie between 0 and 2")` */
export function usage(message: string): CliError {
  return new CliError(message, EXIT_USAGE);
}
