import { execFile } from "node:child_process";
import { statfs } from "node:fs/promises";
import { availableParallelism, freemem, totalmem } from "node:os";
import { bytes } from "../../numbers.ts";
import { bad, type Finding, ok, warn } from "./check.ts";
import { nearestExisting } from "./storage.ts";

/** Below this a 135 M-parameter model in fp32 and the embedded database do not fit together. */
const LEAST_MEMORY_BYTES = 2 * 2 ** 30;
/** The embedded database takes 60 MB empty; a download of a small model about 1 GB. */
const LEAST_DISK_BYTES = 2 * 2 ** 30;

export async function nodeVersion(): Promise<Finding> {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const found = `${process.versions.node} on ${process.platform} ${process.arch}, ${availableParallelism()} cores`;
  if (major < 20 || (major === 20 && minor < 19)) {
    return bad("Node.js", found, "install Node.js 22 or 24 (20.19 is the oldest that works)");
  }
  return ok("Node.js", found);
}

export async function memory(): Promise<Finding> {
  // In a container the limit is what counts, not the host's memory; Node reports 0 where there is none.
  const limit = process.constrainedMemory();
  const total = limit > 0 && limit < totalmem() ? limit : totalmem();
  const found = `${bytes(total)} in all, ${bytes(Math.min(process.availableMemory?.() ?? freemem(), total))} available`;
  return total < LEAST_MEMORY_BYTES
    ? warn("memory", found, "use small models (under 200 M parameters), or a machine with more memory")
    : ok("memory", found);
}

export async function disk(directory: string): Promise<Finding> {
  const { bavail, bsize } = await statfs(await nearestExisting(directory));
  const free = bavail * bsize;
  const found = `${bytes(free)} free for ${directory}`;
  return free < LEAST_DISK_BYTES
    ? warn("disk", found, "make room, or point PRECEPTOR_DATA_DIR at a larger disk")
    : ok("disk", found);
}

/** Loading and multiplying two small matrices takes 0.1 s; a cold disk may need seconds. */
const PROBE_LIMIT_MS = 15_000;

/**
 * Loads ONNX Runtime and multiplies two matrices on `device`, in a process of its own: a missing or foreign native
 * library may end the process, and it prints what it pleases.
 */
export async function probeDevice(device: string): Promise<{ works: boolean; output: string }> {
  const script = process.argv[1] ?? "";
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [...process.execArgv, script, "doctor", "--probe", device],
      { timeout: PROBE_LIMIT_MS },
      (error, stdout, stderr) =>
        resolve({ works: error === null && stdout.includes(PROBE_OK), output: stdout + stderr }),
    );
  });
}

export const PROBE_OK = "multiplies";

export async function onnxRuntime(): Promise<Finding> {
  const { works, output } = await probeDevice("cpu");
  if (works) return ok("ONNX Runtime", "loads and multiplies on the CPU");
  const reason = output.includes("GLIBC")
    ? "the C library is too old or musl: use a glibc system (Debian, Ubuntu, the Docker image; not Alpine)"
    : "reinstall with npm ci, for this platform, and see that antivirus or noexec mounts do not block native modules";
  return bad("ONNX Runtime", firstError(output), reason);
}

export async function accelerators(): Promise<Finding> {
  const devices = ["cuda:0", "webgpu"];
  const works = await Promise.all(devices.map(async (device) => (await probeDevice(device)).works));
  const usable = devices.filter((_, i) => works[i]);
  if (usable.length > 0) return ok("accelerators", usable.join(", "));
  // Not a warning: most machines have none, and the CPU is the default.
  return ok("accelerators", "none usable; models run on the CPU (for NVIDIA: npm run install:cuda, CUDA 12, cuDNN 9)");
}

function firstError(output: string): string {
  const line = output.split("\n").find((candidate) => /error|fail|cannot|not found/i.test(candidate));
  return line?.trim().slice(0, 300) || "it does not load";
}
