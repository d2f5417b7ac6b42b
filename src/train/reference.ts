/**
 * The model that the policy is held to (β k3 in the loss). At first the weights that training began with; a pull moves it
 * towards the policy: ref ← α · policy + (1 − α) · ref (TR-DPO, arXiv 2404.09656; the method pulls every 32 steps).
 */
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Engine, OpenOptions, TrainingModel } from "../engine/engine.ts";
import { openAdapter } from "../model/adapter.ts";
import type { AdapterFiles, Checkpoint } from "../model/checkpoint.ts";
import { openCheckpoint } from "../model/open.ts";
import { type TensorToWrite, writeSafetensors } from "../model/safetensors-write.ts";
import { readTensor } from "../model/tensor-data.ts";
import { linearShapes } from "../model/tensors.ts";
import type { Current } from "./policy.ts";

export interface Reference {
  current(): Promise<Current>;
  /** Where its weights lie; null: they are those of the model as it was registered. */
  directory(): string | null;
  /** Begins with these weights, a folder that `save` wrote. */
  set(directory: string): Promise<void>;
  pull(policy: TrainingModel, mixup: number): Promise<void>;
  close(): Promise<void>;
}

export interface ReferenceDeps {
  base: Current;
  checkpoint: Checkpoint;
  /** What whole weights are opened with; null: adapters on the base. */
  full: { engine: Pick<Engine, "open">; options: OpenOptions } | null;
  /** An empty folder of its own. */
  scratch: string;
}

export function createReference(deps: ReferenceDeps, directory: string | null): Reference {
  const { base, checkpoint, full, scratch } = deps;
  let at = directory;
  let count = 0;
  let opened: { current: Current; close(): Promise<void> } | null = null;

  async function open(): Promise<{ current: Current; close(): Promise<void> }> {
    const nothing = async (): Promise<void> => undefined;
    if (at === null) return { current: base, close: nothing };
    if (!full) {
      const adapter = await openAdapter(at, checkpoint, { allowedRoots: [path.dirname(at)] });
      return { current: { engine: base.engine, adapter }, close: nothing };
    }
    const engine = await full.engine.open(await openCheckpoint(at), { ...full.options, transient: true });
    return { current: { engine, adapter: null }, close: () => engine.close() };
  }

  async function set(next: string): Promise<void> {
    const before = opened;
    opened = null;
    at = next;
    await before?.close();
  }

  return {
    async current() {
      opened ??= await open();
      return opened.current;
    },
    directory: () => at,
    set,
    async pull(policy, mixup) {
      const fresh = path.join(scratch, `policy-${count}`);
      const mixed = path.join(scratch, `reference-${count}`);
      count++;
      await policy.save(fresh, { state: false });
      if (full) await mixCheckpoints(fresh, at ?? checkpoint.directory, mixed, mixup);
      else await mixAdapters(checkpoint, fresh, at ?? base.adapter?.directory ?? null, mixed, mixup);
      await rm(fresh, { recursive: true });
      const before = at;
      await set(mixed);
      if (before?.startsWith(scratch)) await rm(before, { recursive: true, force: true });
    },
    close: async () => void (await opened?.close()),
  };
}

/** Tensor by tensor. */
async function mixCheckpoints(policy: string, reference: string, out: string, mixup: number): Promise<void> {
  const [mine, other] = [await openCheckpoint(policy), await openCheckpoint(reference)];
  await cp(policy, out, { recursive: true });
  const tensors: TensorToWrite[] = Object.entries(mine.tensors).map(([name, location]) => ({
    name,
    dtype: "F32",
    shape: location.shape,
    data: async function* () {
      const [a, b] = [await readTensor(location), await readTensor(other.tensors[name]!)];
      yield bytesOf(a.map((value, i) => mixup * value + (1 - mixup) * b[i]!));
    },
  }));
  await writeSafetensors(path.join(out, "model.safetensors"), tensors);
}

/** Policies that a reference consists of, and what each counts; the bare base has no update and needs no term. */
const TERMS = "reference_terms.json";
/** Of the update; what counts less changes nothing that float32 training would notice. */
const LEAST_SHARE = 0.01;

interface Term {
  share: number;
  rank: number;
}

/**
 * Updates add up by their products, not by their factors: A and B averaged apart would be another matrix. So the ranks of all
 * terms stand beside each other, shares and scales folded into B.
 */
async function mixAdapters(
  checkpoint: Checkpoint,
  policy: string,
  reference: string | null,
  out: string,
  mixup: number,
): Promise<void> {
  const options = { allowedRoots: [path.dirname(policy)] };
  const fresh = await openAdapter(policy, checkpoint, options);
  const old =
    reference === null ? null : await openAdapter(reference, checkpoint, { allowedRoots: [path.dirname(reference)] });
  const terms = old ? await readTerms(reference!, old) : [];
  const kept = terms
    .map((term) => ({ ...term, share: term.share * (1 - mixup) }))
    .filter(({ share }) => share >= LEAST_SHARE);
  const keptRank = kept.reduce((sum, { rank }) => sum + rank, 0);
  const rank = fresh.targets[0]!.rank;
  const total = rank + keptRank;
  const tensors: TensorToWrite[] = [];
  for (const target of fresh.targets) {
    const { layer, module, a, b, scale } = target;
    const columns = a.shape[1]!;
    const rows = b.shape[0]!;
    const mixedA = new Float32Array(total * columns);
    const mixedB = new Float32Array(rows * total);
    mixedA.set(await readTensor(a));
    const newB = await readTensor(b);
    for (let r = 0; r < rows; r++) {
      for (let k = 0; k < rank; k++) mixedB[r * total + k] = newB[r * rank + k]! * scale * mixup;
    }
    const before = old?.targets.find((other) => other.layer === layer && other.module === module);
    if (before && keptRank > 0) {
      // Terms that are dropped stand last: they are the oldest.
      mixedA.set((await readTensor(before.a)).subarray(0, keptRank * columns), rank * columns);
      const oldB = await readTensor(before.b);
      for (let r = 0; r < rows; r++) {
        for (let k = 0; k < keptRank; k++) {
          mixedB[r * total + rank + k] = oldB[r * before.rank + k]! * before.scale * (1 - mixup);
        }
      }
    }
    const { path: where } = linearShapes(checkpoint.config)[module]!;
    const name = `base_model.model.model.layers.${layer}.${where}`;
    tensors.push({ name: `${name}.lora_A.weight`, dtype: "F32", shape: [total, columns], data: bytesOf(mixedA) });
    tensors.push({ name: `${name}.lora_B.weight`, dtype: "F32", shape: [rows, total], data: bytesOf(mixedB) });
  }
  await mkdir(out, { recursive: true });
  const config = JSON.parse(await readFile(path.join(policy, "adapter_config.json"), "utf8")) as object;
  // Scales are in B already.
  const plain = { ...config, r: total, lora_alpha: total, use_rslora: false, rank_pattern: {}, alpha_pattern: {} };
  await writeFile(path.join(out, "adapter_config.json"), `${JSON.stringify(plain, null, 2)}\n`);
  await writeFile(path.join(out, TERMS), JSON.stringify([{ share: mixup, rank }, ...kept] satisfies Term[]));
  await writeSafetensors(path.join(out, "adapter_model.safetensors"), tensors);
}

/** An adapter that no pull has written is one term. */
async function readTerms(directory: string, { targets }: AdapterFiles): Promise<Term[]> {
  const found = await readFile(path.join(directory, TERMS), "utf8").catch(() => null);
  return found === null ? [{ share: 1, rank: targets[0]!.rank }] : (JSON.parse(found) as Term[]);
}

const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
