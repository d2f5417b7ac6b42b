/** The program's log: pino, JSON lines for machines, one readable line for a terminal. Keys never appear in it. */
import { Writable } from "node:stream";
import { type DestinationStream, type Logger, pino } from "pino";

export type LogLevel = "fatal" | "error" | "warn" | "info" | "debug" | "trace" | "silent";

const REDACT = ["authorization", "*.authorization", "*.*.authorization", "api_key", "*.api_key", "apiKey", "*.apiKey"];

export function createLogger(
  options: { level: LogLevel; format: "pretty" | "json" },
  output: NodeJS.WritableStream = process.stdout,
): Logger {
  const destination: DestinationStream = options.format === "pretty" ? prettyLines(output) : output;
  return pino({ level: options.level, redact: { paths: REDACT, censor: "[redacted]" }, base: null }, destination);
}

const LEVELS: Readonly<Record<number, string>> = {
  10: "trace",
  20: "debug",
  30: "info ",
  40: "\u001b[33mwarn \u001b[39m",
  50: "\u001b[31merror\u001b[39m",
  60: "\u001b[31mfatal\u001b[39m",
};

/** pino-pretty is a development tool; this is what a terminal needs of it. */
function prettyLines(output: NodeJS.WritableStream): Writable {
  return new Writable({
    decodeStrings: false,
    write(line: string, _encoding, done) {
      output.write(prettyLine(String(line)), () => done());
    },
  });
}

function prettyLine(line: string): string {
  const { level, time, msg, err, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const clock = new Date(Number(time)).toTimeString().slice(0, 8);
  let head = String(msg ?? "");
  if (msg === "request") {
    head = `${fields.method} ${fields.path} ${fields.status} ${fields.duration_ms} ms`;
    for (const shown of ["method", "path", "status", "duration_ms"]) delete fields[shown];
  }
  const rest = Object.entries(fields).map(
    ([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  const detail = rest.length > 0 ? ` \u001b[2m${rest.join(" ")}\u001b[22m` : "";
  const trace = (err as { stack?: string } | undefined)?.stack;
  return `${clock} ${LEVELS[Number(level)] ?? level} ${head}${detail}\n${trace ? `${trace}\n` : ""}`;
}
