import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Precision } from "../../src/engine/engine.ts";
import { benchEngine } from "./engine.ts";
import { benchHttp } from "./http.ts";

const USAGE = `npm run bench -- [engine|http|all] [--model DIRECTORY] [--precision fp32|q8|q4] [--threads N]
  engine  tokens per second of sampling (1, 4, 16 streams) and of log-probs, peak memory, share of the matrix rate
  http    the server under load: /healthz, time to first token, 16 streams, a client that leaves
Without --model a checkpoint of SmolLM2-135M's shape with random weights is written to a temporary directory.
`;

const PRECISIONS: readonly string[] = ["fp32", "q8", "q4"] satisfies Precision[];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string" },
    precision: { type: "string", default: "fp32" },
    threads: { type: "string" },
    help: { type: "boolean", short: "h", default: false },
  },
});
const what = positionals[0] ?? "all";
const print = (line: string): void => void process.stdout.write(`${line}\n`);

const mistake = values.help
  ? "help"
  : !["engine", "http", "all"].includes(what) || positionals.length > 1
    ? `unknown benchmark ${positionals.join(" ")}`
    : !PRECISIONS.includes(values.precision)
      ? `unknown precision ${values.precision}`
      : values.threads !== undefined && !/^[1-9]\d*$/.test(values.threads)
        ? "--threads must be a whole number"
        : values.model !== undefined && !existsSync(values.model)
          ? `${values.model} does not exist`
          : undefined;

if (mistake) {
  process.stderr.write(values.help ? USAGE : `${mistake}\n\n${USAGE}`);
  process.exitCode = values.help ? 0 : 2;
} else {
  const options = {
    ...(values.model ? { directory: values.model } : {}),
    ...(values.threads ? { threads: Number(values.threads) } : {}),
    precision: values.precision as Precision,
  };
  if (what !== "http") await benchEngine(options, print);
  if (what === "all") print("");
  if (what !== "engine") await benchHttp(options, print);
}
