import type { Client } from "./server/client.ts";
import type { Style } from "./terminal/style.ts";

/** Options every command has. */
export interface GlobalOptions {
  url?: string;
  color?: boolean;
  debug?: boolean;
}

/** What a command may use of the outside world; built once per invocation, replaced in tests by running the real thing. */
export interface CliContext {
  /** The result goes here, and nothing else: it can be piped. */
  out(text: string): void;
  /** Progress, summaries and hints. */
  note(text: string): void;
  /** Standard input as text, or undefined when it is a terminal. */
  readInput(): Promise<string | undefined>;
  /** Style of what `out` gets, and of what `note` gets: either may be redirected alone. */
  outStyle: Style;
  noteStyle: Style;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
  /** The running server that commands talk to. */
  client(): Client;
}
