import { once } from "node:events";
import { cp, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ROOT, runCli, startCli } from "./run-cli.ts";

interface Served {
  url: string;
  child: ReturnType<typeof startCli>;
  lines: string[];
  /** Exit code, once it has ended. */
  ended: Promise<number | null>;
}

let scratch = "";
const running: Served[] = [];

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "preceptor-serve-"));
  await cp(join(ROOT, "test/golden/models/llama"), join(scratch, "models/tiny"), { recursive: true });
});
afterEach(async () => {
  for (const { child, ended } of running.splice(0)) {
    child.kill("SIGKILL");
    await ended;
  }
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

const options = () => ["--port", "0", "--data-dir", join(scratch, "data"), "--models-dir", join(scratch, "models")];

async function serve(): Promise<Served> {
  const child = startCli(["serve", ...options()]);
  const ended = once(child, "close").then(([code]) => code as number | null);
  const lines: string[] = [];
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      lines.push(line);
      const found = /listens on (http:\/\/[\d.]+:\d+)/.exec(line)?.[1];
      if (found) resolve(found);
    });
    let stderr = "";
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    void ended.then((code) => reject(new Error(`ended with ${code}: ${stderr}\n${lines.join("\n")}`)));
  });
  const served = { url, child, lines, ended };
  running.push(served);
  return served;
}

/** Starts a stream of this many tokens and resolves once the first arrives; `rest` is all of it. */
async function streaming(url: string, maxTokens: number): Promise<{ rest: Promise<string> }> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model: "tiny",
      prompt: "q",
      max_tokens: maxTokens,
      ignore_eos: true,
      seed: 1,
      stream: true,
    }),
  });
  expect(response.status).toBe(200);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = (await reader.read()).value ?? "";
  return {
    rest: (async () => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return text;
        text += value;
      }
    })(),
  };
}

describe("preceptor serve", () => {
  it("registers what lies in the models directory, and on SIGTERM lets a stream finish, then exits 0", async () => {
    const { url, child, ended } = await serve();
    const { stdout } = await runCli(["models", "list", "--url", url]);
    expect(stdout).toMatch(/^tiny +1 +teacher, student/m);
    const { rest } = await streaming(url, 500);
    child.kill("SIGTERM");
    await expect.poll(async () => (await fetch(`${url}/readyz`)).status, { timeout: 20_000 }).toBe(503);
    const refused = await fetch(`${url}/v1/teachers`);
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).not.toBeNull();
    expect(await rest).toContain('"finish_reason":"length"');
    expect(await ended).toBe(0);
    expect(await readdir(join(scratch, "data"))).not.toContain("pglite.lock");
  });

  it("ends at once with 1 on the second signal, and starts again on the same data", async () => {
    const { url, child, ended } = await serve();
    const { rest } = await streaming(url, 4000);
    rest.catch(() => {}); // cut in the middle, as wanted
    child.kill("SIGINT");
    await expect.poll(async () => (await fetch(`${url}/readyz`)).status, { timeout: 20_000 }).toBe(503);
    child.kill("SIGINT");
    expect(await ended).toBe(1);

    const again = await serve();
    again.child.kill("SIGTERM");
    expect(await again.ended).toBe(0);
  });

  it("refuses a second server on the same data directory, naming the first", async () => {
    const { child } = await serve();
    const { code, stderr } = await runCli(["serve", ...options()]);
    expect(code).toBe(1);
    expect(stderr).toContain(`process ${child.pid}`);
    expect(stderr).toContain("PRECEPTOR_DATA_DIR");
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });

  it("refuses to listen beyond this machine without a key, before it opens anything", async () => {
    const { code, stderr } = await runCli(["serve", "--host", "0.0.0.0"]);
    expect(code).toBe(1);
    expect(stderr).toContain("PRECEPTOR_API_KEY");
  });
});
