import { execFile } from "node:child_process";
import { mkdir, readFile, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

/** Exactly this one: the benchmark drives its internals. */
const VERSION = "3.22.1";
const HOME = path.join(tmpdir(), "preceptor-bench-peers");

/**
 * The entry file of node-llama-cpp, which brings llama.cpp compiled for every kind of processor. It is no dependency of
 * this project: on first use npm puts it into the temporary directory. Throws where that cannot be done.
 */
export async function installNodeLlamaCpp(print: (line: string) => void): Promise<string> {
  const directory = path.join(HOME, "node_modules", "node-llama-cpp");
  await mkdir(HOME, { recursive: true, mode: 0o700 });
  // The name is known to everybody: on a shared machine another account could have put its own code there.
  if (process.getuid && (await stat(HOME)).uid !== process.getuid()) throw new Error(`${HOME} belongs to another user`);
  if ((await installedVersion(directory)) !== VERSION) {
    print(`installing node-llama-cpp ${VERSION} into ${HOME}, for this benchmark only`);
    await install();
  }
  return path.join(directory, "dist", "index.js");
}

async function installedVersion(directory: string): Promise<string | undefined> {
  try {
    const { version } = JSON.parse(await readFile(path.join(directory, "package.json"), "utf8")) as { version: string };
    return version;
  } catch {
    return undefined;
  }
}

/** Without the optional packages, builds for every GPU of 0.7 GB; the one for this processor is named instead. */
async function install(): Promise<void> {
  const packages = [`node-llama-cpp@${VERSION}`, `@node-llama-cpp/${buildName()}@${VERSION}`];
  // By default npm tries for more than a minute before it says that there is no network.
  const flags = [
    "--ignore-scripts",
    "--omit=optional",
    "--no-audit",
    "--no-fund",
    "--fetch-retries=0",
    "--prefix",
    HOME,
  ];
  try {
    const shell = process.platform === "win32"; // npm is a script there
    await promisify(execFile)("npm", ["install", ...flags, ...packages], { shell });
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    throw new Error(`npm could not install it: ${(stderr || message).trim().split("\n")[0]}`, { cause: error });
  }
}

function buildName(): string {
  if (process.platform === "darwin") return process.arch === "arm64" ? "mac-arm64-metal" : "mac-x64";
  return `${process.platform === "win32" ? "win" : process.platform}-${process.arch === "arm" ? "armv7l" : process.arch}`;
}
