import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { post } from "./post.ts";
import { quantile } from "./quantile.ts";
import { randomFrom, randomIds } from "./random.ts";
import { writeRandomModel } from "./random-model.ts";
import { type BenchServer, type ServerOptions, startBenchServer } from "./server.ts";
import { readTokens } from "./token-stream.ts";

/** What a front costs: the same streams from a server itself, and through a second one that knows it as a remote model. */

/** Pairs for the first token, of short answers, and for the time between tokens, of longer ones. */
const FIRST_RUNS = 100;
const TOKEN_RUNS = 20;
/** So that what the server tidies up after an answer is not measured with the next one. */
const PAUSE_MS = 30;
/** Small requests before anything is measured: a server that has just started runs code that is not compiled yet. */
const WARM_UP = 300;
/** Of which the prefix cache has all but the last: what is computed is short, and so are its variations. */
const PROMPT_TOKENS = 305;
const TOKENS = 64;
const FIRST_TOKEN_TARGET_MS = 3;
const TOKEN_TARGET = 0.05;
/** The computing server leaves a core to the one in front of it, as a machine of its own would. */
const THREADS = 1;

interface Times {
  firstToken: number[];
  perToken: number[];
}

export async function benchRemote(options: ServerOptions, print: (line: string) => void): Promise<void> {
  const scratch = await mkdtemp(path.join(tmpdir(), "preceptor-bench-remote-"));
  const servers: BenchServer[] = [];
  try {
    const directory = options.directory ?? (await writeRandomModel(path.join(scratch, "random")));
    const { precision, threads = THREADS } = options;
    const back = await startBenchServer({ scratch: path.join(scratch, "back"), directory, precision, threads });
    servers.push(back);
    const front = await startBenchServer({
      scratch: path.join(scratch, "front"),
      directory,
      precision,
      env: { PRECEPTOR_ALLOWED_HOSTS: new URL(back.base).host },
      register: { model: `openai+${back.base}/v1#bench`, tokenizer: path.resolve(directory) },
    });
    servers.push(front);
    print(
      `server: ${options.directory ?? "random weights of SmolLM2-135M's shape"}, ${precision}, ${threads} thread(s)`,
    );
    for (const server of servers) {
      for (let i = 0; i < WARM_UP; i++) await measure(server, randomIds(randomFrom(i), 8), 2);
    }
    const direct: Times = { firstToken: [], perToken: [] };
    const through: Times = { firstToken: [], perToken: [] };
    const pairs = async (
      runs: number,
      tokens: number,
      take: (times: Times, measured: Measured) => void,
    ): Promise<void> => {
      for (let run = 0; run < runs; run++) {
        const prompt = randomIds(randomFrom(run + 2), PROMPT_TOKENS);
        // Once in vain, so that both find the prompt in the cache: what differs then is the way.
        await measure(back, prompt, tokens);
        for (const server of run % 2 === 0 ? [back, front] : [front, back]) {
          await delay(PAUSE_MS);
          take(server === back ? direct : through, await measure(server, prompt, tokens));
        }
      }
    };
    await pairs(FIRST_RUNS, 2, ({ firstToken }, measured) => firstToken.push(measured.firstToken));
    await pairs(TOKEN_RUNS, TOKENS, ({ perToken }, measured) => perToken.push(measured.perToken));
    report("time to first token", direct.firstToken, through.firstToken, print, (more) => ({
      value: `${more.toFixed(2)} ms more`,
      target: `less than ${FIRST_TOKEN_TARGET_MS} ms`,
      met: more < FIRST_TOKEN_TARGET_MS,
    }));
    report("time per token", direct.perToken, through.perToken, print, (more, per) => ({
      value: `${((more / per) * 100).toFixed(1)} % more`,
      target: `less than ${TOKEN_TARGET * 100} %`,
      met: more / per < TOKEN_TARGET,
    }));
  } finally {
    for (const server of servers) await server.stop();
    await rm(scratch, { recursive: true, force: true });
  }
}

interface Measured {
  firstToken: number;
  perToken: number;
}

async function measure(server: BenchServer, prompt: number[], tokens: number): Promise<Measured> {
  const started = performance.now();
  const body = {
    model: "bench",
    prompt,
    max_tokens: tokens,
    seed: 1,
    ignore_eos: true,
    return_token_ids: true,
    stream: true,
  };
  const response = await post(`${server.base}/v1/completions`, body);
  const seen = await readTokens(response);
  if (!seen.complete || seen.tokens !== tokens) throw new Error(seen.error ?? `${seen.tokens} tokens of ${tokens}`);
  return {
    firstToken: seen.firstToken - started,
    perToken: (seen.lastToken - seen.firstToken) / (seen.tokens - 1),
  };
}

/** Of pairs of runs one after the other, so that what else the machine does touches both. */
function report(
  what: string,
  direct: number[],
  through: number[],
  print: (line: string) => void,
  judge: (more: number, direct: number) => { value: string; target: string; met: boolean },
): void {
  const differences = through.map((ms, i) => ms - direct[i]!);
  const per = quantile(direct, 0.5);
  const { value, target, met } = judge(quantile(differences, 0.5), per);
  const [low, high] = [quantile(differences, 0.25), quantile(differences, 0.75)];
  print(
    `${what.padEnd(20)} direct ${per.toFixed(2)} ms, through the front ${value} (median of ${differences.length} pairs; half of them ` +
      `${low.toFixed(2)} to ${high.toFixed(2)} ms; target ${target}: ${met ? "met" : "MISSED"})`,
  );
}
