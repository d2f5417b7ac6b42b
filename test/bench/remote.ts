import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { post } from "./post.ts";
import { quantile } from "./quantile.ts";
import { randomFrom, randomIds } from "./random.ts";
import { writeRandomModel } from "./random-model.ts";
import { type BenchServer, type ServerOptions, startBenchServer } from "./server.ts";
import { readTokens } from "./token-stream.ts";

/** What a front costs: the same streams from a server itself, and through a second one that knows it as a remote model. */

const RUNS = 20;
const PROMPT_TOKENS = 300;
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
    const direct: Times = { firstToken: [], perToken: [] };
    const through: Times = { firstToken: [], perToken: [] };
    for (let run = -1; run < RUNS; run++) {
      const prompt = randomIds(randomFrom(run + 2), PROMPT_TOKENS);
      // Once in vain, so that both find the prompt in the cache: what differs then is the way.
      await measure(back, prompt);
      const order = run % 2 === 0 ? ([back, front] as const) : ([front, back] as const);
      for (const server of order) {
        const { firstToken, perToken } = await measure(server, prompt);
        if (run < 0) continue;
        const times = server === back ? direct : through;
        times.firstToken.push(firstToken);
        times.perToken.push(perToken);
      }
    }
    report("time to first token", direct.firstToken, through.firstToken, print, (a, b) => ({
      value: `${(b - a).toFixed(2)} ms more`,
      target: `less than ${FIRST_TOKEN_TARGET_MS} ms`,
      met: b - a < FIRST_TOKEN_TARGET_MS,
    }));
    report("time per token", direct.perToken, through.perToken, print, (a, b) => ({
      value: `${((b / a - 1) * 100).toFixed(1)} % more`,
      target: `less than ${TOKEN_TARGET * 100} %`,
      met: b / a - 1 < TOKEN_TARGET,
    }));
  } finally {
    for (const server of servers) await server.stop();
    await rm(scratch, { recursive: true, force: true });
  }
}

async function measure(server: BenchServer, prompt: number[]): Promise<{ firstToken: number; perToken: number }> {
  const started = performance.now();
  const body = {
    model: "bench",
    prompt,
    max_tokens: TOKENS,
    seed: 1,
    ignore_eos: true,
    return_token_ids: true,
    stream: true,
  };
  const response = await post(`${server.base}/v1/completions`, body);
  const seen = await readTokens(response);
  if (!seen.complete || seen.tokens !== TOKENS) throw new Error(seen.error ?? `${seen.tokens} tokens of ${TOKENS}`);
  return {
    firstToken: seen.firstToken - started,
    perToken: (seen.lastToken - seen.firstToken) / (seen.tokens - 1),
  };
}

function report(
  what: string,
  direct: number[],
  through: number[],
  print: (line: string) => void,
  compare: (direct: number, through: number) => { value: string; target: string; met: boolean },
): void {
  const [a, b] = [quantile(direct, 0.5), quantile(through, 0.5)];
  const { value, target, met } = compare(a, b);
  print(
    `${what.padEnd(20)} direct ${a.toFixed(2)} ms, through the front ${b.toFixed(2)} ms (medians of ${RUNS}): ${value} ` +
      `(target ${target}: ${met ? "met" : "MISSED"})`,
  );
}
