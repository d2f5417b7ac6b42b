import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Worker, type WorkerOptions } from "node:worker_threads";

/**
 * Starts a worker thread from a module beside its caller: `spawnWorker(new URL("./worker.ts", import.meta.url))`.
 * The build runs plain JavaScript (the compiler does not rewrite the extension inside `new URL`, so it happens here).
 * Sources (development, tests) go through tsx, which must be registered inside the thread: Node 20 ignores
 * `--import tsx` there.
 */
export function spawnWorker(module: URL, options: WorkerOptions = {}): Worker {
  if (import.meta.url.endsWith(".js")) return new Worker(new URL(module.href.replace(/\.ts$/, ".js")), options);
  const api = createRequire(import.meta.url)
    .resolve("tsx/esm/api")
    .replace(/\.cjs$/, ".mjs");
  const loader = JSON.stringify(pathToFileURL(api).href);
  const boot = `import(${loader}).then(({ register }) => { register(); return import(${JSON.stringify(module.href)}); })
    .catch((error) => setImmediate(() => { throw error; }));`;
  return new Worker(boot, { ...options, eval: true, execArgv: [] });
}
