import { writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { openAdapter } from "../../../src/model/adapter.ts";
import { encodeFloats } from "../../../src/model/dtype.ts";
import { mergedTensors } from "../../../src/model/merge-adapter.ts";
import { openCheckpoint } from "../../../src/model/open.ts";
import { readSafetensorsHeader } from "../../../src/model/safetensors.ts";
import { safetensorsFile, writeSafetensors } from "../../../src/model/safetensors-write.ts";
import { readTensor } from "../../../src/model/tensor-data.ts";
import { LLAMA_CONFIG, temporaryDirectory, tensorsFor, writeCheckpoint } from "./fixture.ts";

const RANK = 3;
const ALPHA = 6;
const TARGETS = [
  { name: "model.layers.0.self_attn.q_proj", out: 8, in: 8 },
  { name: "model.layers.1.mlp.down_proj", out: 8, in: 12 },
];
const values = (length: number, seed: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(i * 1.7 + seed) / 3);

async function adapter(): Promise<string> {
  const directory = await temporaryDirectory();
  const config = { peft_type: "LORA", r: RANK, lora_alpha: ALPHA, target_modules: ["q_proj", "down_proj"] };
  await writeFile(path.join(directory, "adapter_config.json"), JSON.stringify(config));
  const matrix = (name: string, shape: number[], seed: number) => ({
    name: `base_model.model.${name}.weight`,
    dtype: "F32" as const,
    shape,
    data: encodeFloats(values(shape[0]! * shape[1]!, seed), "F32"),
  });
  const tensors = TARGETS.flatMap((target, t) => [
    matrix(`${target.name}.lora_A`, [RANK, target.in], t),
    matrix(`${target.name}.lora_B`, [target.out, RANK], t + 10),
  ]);
  await writeSafetensors(path.join(directory, "adapter_model.safetensors"), tensors);
  return directory;
}

test.each(["F32", "BF16", "F16"] as const)(
  "%s: W + scale · B A where there is an adapter, the same bytes elsewhere",
  async (dtype) => {
    const checkpoint = await openCheckpoint(await writeCheckpoint({ tensors: tensorsFor(LLAMA_CONFIG, dtype) }));
    const { bytes, read } = safetensorsFile(mergedTensors(checkpoint, await openAdapter(await adapter(), checkpoint)));
    const file = path.join(await temporaryDirectory(), "model.safetensors");
    const chunks: Uint8Array[] = [];
    for await (const chunk of read()) chunks.push(chunk);
    await writeFile(file, Buffer.concat(chunks));
    expect(Buffer.concat(chunks).length).toBe(bytes);

    const { tensors } = await readSafetensorsHeader(file, "model.safetensors");
    expect([...tensors.keys()].sort()).toEqual(Object.keys(checkpoint.tensors).sort());
    for (const [name, location] of tensors) {
      const before = await readTensor(checkpoint.tensors[name]!);
      const t = TARGETS.findIndex((target) => `${target.name}.weight` === name);
      const expected = before.slice();
      if (t >= 0) {
        const { out, in: columns } = TARGETS[t]!;
        const [A, B] = [values(RANK * columns, t), values(out * RANK, t + 10)];
        for (let r = 0; r < out; r++) {
          for (let c = 0; c < columns; c++) {
            let sum = before[r * columns + c]!;
            for (let k = 0; k < RANK; k++) sum += (ALPHA / RANK) * B[r * RANK + k]! * A[k * columns + c]!;
            expected[r * columns + c] = sum;
          }
        }
      }
      expect(location.dtype).toBe(dtype);
      expect(encodeFloats(await readTensor(location), dtype), name).toEqual(encodeFloats(expected, dtype));
    }
  },
);
