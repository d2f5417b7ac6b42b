import { createRequire } from "node:module";
import type { env, InferenceSession } from "onnxruntime-node";
import type { Binding } from "onnxruntime-node/dist/binding.js";
import { fail } from "../../errors.ts";
import type { ComputeGuard } from "./exit-guard.ts";

/**
 * The only importer of onnxruntime-node. It uses the synchronous binding under the public API: `run()` blocks its thread
 * either way (engine.md 1.1), and a synchronous call saves 10 µs and keeps a decode step free of interleaving.
 */
const require = createRequire(import.meta.url);
const native = require("onnxruntime-node/dist/binding.js") as {
  binding: { InferenceSession: Binding.InferenceSessionConstructor };
  initOrt: () => void;
};
const ort = require("onnxruntime-node") as { env: typeof env };
// What fails is thrown; the process's log is not ONNX Runtime's to write.
ort.env.logLevel = "fatal";
/** The same for each session and run. */
const QUIET = 4;

export type TensorData = Float32Array | Int32Array | BigInt64Array | Uint8Array;

/** A CPU tensor. `data` may be longer than `dims` need, and is read in place. */
export interface Tensor {
  readonly type: "float32" | "int32" | "int64" | "bool";
  readonly dims: readonly number[];
  readonly data: TensorData;
  readonly location: "cpu";
}

export function tensor(type: Tensor["type"], dims: readonly number[], data: TensorData): Tensor {
  return { type, dims, data, location: "cpu" };
}

export interface Session {
  /** Computes on the calling thread and returns fresh arrays for the named outputs. Throws `engine_failed`, `out_of_memory`. */
  run(feeds: Readonly<Record<string, Tensor>>, fetches: readonly string[]): Record<string, TensorData>;
  dispose(): void;
}

export interface SessionOptions {
  threads: number;
  /** `cpu`, `cuda:0`, `webgpu`. */
  device: string;
  /** Wraps every native call of a worker thread; see exit-guard.ts. */
  guard?: ComputeGuard;
  /** Wraps every run; see turns.ts. Loading goes beside it: it is mostly reading. */
  turn?: ComputeGuard;
  /**
   * Computes nodes as the graph orders them and keeps nothing but its values: no folding of widened weights, no merging of
   * what is computed twice on purpose (engine.md 4), no packed copies, of which forward and backward need one each.
   */
  plain?: boolean;
  /** Also writes the loaded model with its weights, both as they were and as the kernels packed them; CPU only. */
  packTo?: PackTarget;
}

export interface PackTarget {
  /** File of the model, absolute. */
  model: string;
  /** Name of the file beside it that its weights go to. */
  data: string;
}

/** Names what packs the weights: another version may want them in another layout. */
export const RUNTIME_VERSION = `onnxruntime-node ${ort.env.versions.node}`;

/** Folder that external data locations are relative to: the root, so that any resolved path can be named. */
export const EXTERNAL_ROOT = "/";

/** Half-precision weights are widened once at load; the largest one (a 256 k × 5 k head) must not fall back to every run. */
const FOLDING_LIMIT_BYTES = String(2 ** 36);

export function createSession(model: Uint8Array, options: SessionOptions): Session {
  native.initOrt();
  const { guard = (work) => work(), turn = (work) => work() } = options;
  const session = new native.binding.InferenceSession();
  try {
    guard(() =>
      session.loadModel(model.buffer as ArrayBuffer, model.byteOffset, model.byteLength, sessionOptions(options)),
    );
  } catch (error) {
    throw loadError(error, options.device);
  }
  return {
    run(feeds, fetches) {
      const wanted = Object.fromEntries(fetches.map((name) => [name, null]));
      try {
        const outputs = turn(() => guard(() => session.run(feeds as never, wanted, { logSeverityLevel: QUIET })));
        return Object.fromEntries(fetches.map((name) => [name, outputs[name]?.data as TensorData]));
      } catch (error) {
        throw runtimeError("the computation failed", error);
      }
    },
    dispose: () => session.dispose(),
  };
}

function sessionOptions({ threads, device, packTo, plain = false }: SessionOptions): InferenceSession.SessionOptions {
  return {
    ...(packTo ? { optimizedModelFilePath: packTo.model } : {}),
    executionProviders: providers(device),
    intraOpNumThreads: threads,
    graphOptimizationLevel: plain ? "basic" : "all",
    // On, a second plan is allocated beside the first, and shapes vary here (engine.md 4).
    enableMemPattern: false,
    // The arena keeps the largest run it ever saw, for each session; without it every run gives its memory back, as fast.
    // Not so in training: gigabytes in pieces that worker threads' malloc returns to the system each time; asking for the
    // pages again took a fifth of a step.
    enableCpuMemArena: plain,
    logSeverityLevel: QUIET,
    extra: {
      session: {
        model_external_initializers_file_folder_path: EXTERNAL_ROOT,
        // Idle threads must not burn the cores that the server needs (engine.md 1.5).
        force_spinning_stop: "1",
        ...(plain ? { disable_prepacking: "1" } : {}),
        ...(packTo ? packing(packTo) : {}),
      },
      optimization: {
        constant_folding_max_output_size_in_bytes: FOLDING_LIMIT_BYTES,
        ...(plain ? { disable_specified_optimizers: "CommonSubexpressionElimination;ConstantFolding" } : {}),
      },
    },
  };
}

function packing({ data }: PackTarget): Record<string, string> {
  return {
    save_external_prepacked_constant_initializers: "1",
    optimized_model_external_initializers_file_name: data,
    // None inside the protobuf: only outside is a packed one written beside it.
    optimized_model_external_initializers_min_size_in_bytes: "0",
  };
}

function providers(device: string): InferenceSession.SessionOptions["executionProviders"] & object {
  const cuda = /^cuda:(\d+)$/.exec(device);
  if (cuda) return [{ name: "cuda", deviceId: Number(cuda[1]) }, "cpu"];
  if (device === "webgpu") return ["webgpu", "cpu"];
  if (device === "cpu") return ["cpu"];
  throw fail("unsupported_by_backend", `device "${device}" is unknown; use cpu, cuda:N or webgpu`, { param: "device" });
}

function loadError(error: unknown, device: string): Error {
  if (device === "cpu") return runtimeError("the model could not be loaded", error);
  const help = device.startsWith("cuda")
    ? "install the CUDA provider with `npm run install:cuda` (CUDA 12 and cuDNN 9 must be present)"
    : "WebGPU needs a Vulkan driver (libvulkan.so.1)";
  return fail(
    "unsupported_by_backend",
    `device "${device}" is not usable on this machine: ${help}, or use device "cpu"`,
    {
      param: "device",
      cause: error,
    },
  );
}

function runtimeError(what: string, cause: unknown): Error {
  const message = cause instanceof Error ? cause.message : String(cause);
  return /allocat|bad_alloc|out of memory/i.test(message)
    ? fail("out_of_memory", `${what}: not enough memory; use a smaller context, model or precision`, { cause })
    : fail("engine_failed", `${what}: ${message.split("\n")[0]}`, { cause });
}
