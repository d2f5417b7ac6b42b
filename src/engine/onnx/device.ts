import { fail, PreceptorError } from "../../errors.ts";
import { createPeer } from "../../thread/peer.ts";
import { spawnWorker } from "../../thread/spawn.ts";
import type { Precision } from "../engine.ts";

/** Starting CUDA for the first time takes seconds; a driver that hangs must not hang a registration. */
const PROBE_LIMIT_MS = 60_000;

/** Quantised kernels, and the packed weights they read, are those of the CPU. Throws `unsupported_by_backend`. */
export function checkPrecision(precision: Precision, device: string): void {
  if (precision === "fp32" || device === "cpu") return;
  throw fail("unsupported_by_backend", `precision ${precision} runs on the CPU only; use fp32 on ${device}`, {
    param: "precision",
  });
}

/** What was found out about each device, for the life of the process: drivers do not come and go. */
const probed = new Map<string, Promise<void>>();

/**
 * Resolves where models can run on `device` (`cpu`, `cuda:0`, `webgpu`). A device other than the CPU is tried with a tiny
 * session in a thread of its own, once per process. Throws `unsupported_by_backend` with what to install.
 */
export function checkDevice(device: string): Promise<void> {
  if (device === "cpu") return Promise.resolve();
  const known = probed.get(device) ?? probe(device);
  probed.set(device, known);
  return known;
}

async function probe(device: string): Promise<void> {
  const worker = spawnWorker(new URL("./device-worker.ts", import.meta.url));
  const peer = createPeer(worker, {});
  const timer = setTimeout(() => peer.fail(unusable(device, new Error("no answer in time"))), PROBE_LIMIT_MS);
  try {
    await peer.call("probe", device);
  } catch (error) {
    throw error instanceof PreceptorError ? error : unusable(device, error);
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
}

function unusable(device: string, cause: unknown): PreceptorError {
  return fail("unsupported_by_backend", `device "${device}" is not usable on this machine; use "cpu"`, {
    param: "device",
    cause,
  });
}
