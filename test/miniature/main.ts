/**
 * `npm run miniature`: does reinforcement raise the held-out reward, by more than chance and more than random rewards do?
 * `-- --distil`: does a student that learns from the reinforced teacher get better, and better than without it?
 */
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { DISTIL, distil } from "./distil.ts";
import { LEARNING, learn, makeBase } from "./learning.ts";

const USAGE = "npm run miniature -- [--seeds 3] [--steps 60] [--base DIRECTORY] [--distil]\n";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "3" },
    steps: { type: "string", default: String(LEARNING.steps) },
    base: { type: "string", default: path.join(tmpdir(), "preceptor-miniature", "base") },
    distil: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  },
});
const print = (line: string): void => void process.stdout.write(`${line}\n`);
const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1);
const steps = Number(values.steps);

if (values.help || seeds.length < 2 || !(steps > 0)) {
  process.stderr.write(USAGE);
  process.exit(values.help ? 0 : 2);
}
if (!existsSync(path.join(values.base, "model.safetensors"))) {
  const started = performance.now();
  await makeBase(
    values.base,
    (step, loss) => step % 100 === 0 && print(`  base, step ${step}: loss ${loss.toFixed(3)}`),
  );
  print(`base pre-trained in ${((performance.now() - started) / 1000).toFixed(0)} s: ${values.base}`);
}
if (values.distil) {
  const { accepted, evaluation, controls } = await distil(values.base, { ...DISTIL, rltSteps: steps }, print);
  const share = (value: number): string => value.toFixed(3);
  const { before, after, uplift } = evaluation!;
  const within = ({ interval }: typeof before): string => `${share(interval!.low)} to ${share(interval!.high)}`;
  print(`${accepted} rows; accuracy on ${uplift.rows} held-out questions, greedy (95 % intervals)`);
  print(`  before                     ${share(before.accuracy!)}  ${within(before)}`);
  print(
    `  after                      ${share(after.accuracy!)}  ${within(after)}, McNemar p ${uplift.mcnemar_p!.toExponential(1)}`,
  );
  for (const [control, made] of Object.entries(controls!)) {
    print(`  control, ${control.padEnd(16)}  ${share(made.evaluation!.accuracy!)}  ${within(made.evaluation!)}`);
  }
  process.exit(after.accuracy! > before.accuracy! ? 0 : 1);
}
for (const reward of ["student", "random"] as const) {
  const gains: number[] = [];
  for (const seed of seeds) {
    const { before, after, seconds } = await learn(values.base, { ...LEARNING, steps, seed, reward });
    gains.push(after - before);
    print(
      `${reward} rewards, seed ${seed}: held-out reward ${before.toFixed(3)} → ${after.toFixed(3)} nats in ${seconds.toFixed(0)} s`,
    );
  }
  const mean = gains.reduce((sum, gain) => sum + gain, 0) / gains.length;
  const error = Math.sqrt(gains.reduce((sum, gain) => sum + (gain - mean) ** 2, 0) / (gains.length - 1) / gains.length);
  print(
    `${reward} rewards: gain ${mean.toFixed(3)} ± ${error.toFixed(3)} nats (standard error over ${gains.length} seeds)`,
  );
}
process.exit(0);
