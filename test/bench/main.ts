import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Precision } from "../../src/engine/engine.ts";
import { benchEngine } from "./engine.ts";
import { benchHttp } from "./http.ts";

const USAGE = `npm run bench -- [engine|http|all] [--model DIRECTORY] [--precision LIST] [--threads N] [--no-peers]
  engine  tokens per second of sampling (one stream, a group, streams) and of log-probs, beside llama.cpp and Transformers
          on the same weights and beside what the machine can do; LIST: fp32,q8,q4 (and q8_0, q4_0), default fp32,q8,q4
  http    the server under load: /healthz, time to first token, 16 streams, a client that leaves (first of LIST)
Without --model a checkpoint of SmolLM2-135M's shape with random weights is written to a temporary directory.
`;

const PRECISIONS: readonly string[] = ["fp32", "q8", "q4", "q8_0", "q4_0"] satisfies Precision[];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string" },
    precision: { type: "string", default: "fp32,q8,q4" },
    threads: { type: "string" },
    "no-peers": { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  },
});
const what = positionals[0] ?? "all";
const precisions = values.precision.split(",") as Precision[];
const print = (line: string): void => void process.stdout.write(`${line}\n`);

const mistake = values.help
  ? "help"
  : !["engine", "http", "all"].includes(what) || positionals.length > 1
    ? `unknown benchmark ${positionals.join(" ")}`
    : !precisions.every((precision) => PRECISIONS.includes(precision))
      ? `unknown precision in ${values.precision}`
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
  };
  if (what !== "http") await benchEngine({ ...options, precisions, peers: !values["no-peers"] }, print);
  if (what === "all") print("");
  if (what !== "engine") await benchHttp({ ...options, precision: precisions[0]! }, print);
}
