import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Precision } from "../../src/engine/engine.ts";
import { benchDistil } from "./distil.ts";
import { benchEngine } from "./engine.ts";
import { benchFairness } from "./fairness.ts";
import { benchHttp } from "./http.ts";
import { benchMemory } from "./memory.ts";
import { benchRemote } from "./remote.ts";
import { benchSoak } from "./soak.ts";
import { benchTrain } from "./train.ts";

const USAGE = `npm run bench -- [engine|train|distil|http|fairness|memory|remote|soak|all] [--model DIRECTORY] [--precision LIST] [--threads N] [--no-peers]
  engine  tokens per second of sampling (one stream, a group, streams) and of log-probs, beside llama.cpp and Transformers
          on the same weights and beside what the machine can do; LIST: fp32,q8,q4 (and q8_0, q4_0), default fp32,q8,q4
  train   tokens per second of LoRA training (forward, backward, AdamW), beside PEFT and the fp32 matrix rate; seconds of one
          rlt step, phase by phase, beside TRL; fp32
  distil  a job's wall time beside generation alone and scoring alone; beside the slower stage where one has a fixed rate
  http    the server under load: /healthz, time to first token, 16 streams, a client that leaves
  fairness  64 streams, one read slowly; then more requests than fit
  remote  what a server adds that has its model from another one: to the first token, to each token
  memory  what a second worker and an adapter add to the first; what idling costs
  soak    mixed load for --minutes (15) after --warmup minutes (5): does memory grow?
All but engine use the first precision of LIST; "all" is engine and http.
Without --model a checkpoint of SmolLM2-135M's shape with random weights is written to a temporary directory.
`;

const PRECISIONS: readonly string[] = ["fp32", "q8", "q4", "q8_0", "q4_0"] satisfies Precision[];

const BENCHMARKS = ["engine", "train", "distil", "http", "fairness", "memory", "remote", "soak", "all"];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string" },
    precision: { type: "string", default: "fp32,q8,q4" },
    threads: { type: "string" },
    "no-peers": { type: "boolean", default: false },
    minutes: { type: "string", default: "15" },
    warmup: { type: "string", default: "5" },
    help: { type: "boolean", short: "h", default: false },
  },
});
const what = positionals[0] ?? "all";
const precisions = values.precision.split(",") as Precision[];
const print = (line: string): void => void process.stdout.write(`${line}\n`);

const mistake = values.help
  ? "help"
  : !BENCHMARKS.includes(what) || positionals.length > 1
    ? `unknown benchmark ${positionals.join(" ")}`
    : !precisions.every((precision) => PRECISIONS.includes(precision))
      ? `unknown precision in ${values.precision}`
      : [values.threads ?? "1", values.minutes, values.warmup].some((number) => !/^[1-9]\d*$/.test(number))
        ? "--threads, --minutes and --warmup must be whole numbers"
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
  const server = { ...options, precision: precisions[0]! };
  const [minutes, warmupMinutes] = [Number(values.minutes), Number(values.warmup)];
  if (what === "engine" || what === "all")
    await benchEngine({ ...options, precisions, peers: !values["no-peers"] }, print);
  if (what === "train") await benchTrain({ ...options, peers: !values["no-peers"] }, print);
  if (what === "distil") await benchDistil({ ...options, precision: precisions[0]! }, print);
  if (what === "all") print("");
  if (what === "http" || what === "all") await benchHttp(server, print);
  if (what === "fairness") await benchFairness(server, print);
  if (what === "remote") await benchRemote(server, print);
  if (what === "memory") await benchMemory(server, print);
  if (what === "soak") await benchSoak({ ...server, minutes, warmupMinutes }, print);
}
