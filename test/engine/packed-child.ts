import { readFileSync } from "node:fs";
import { packedWeights } from "../../src/engine/onnx/packed-weights.ts";
import { createSession } from "../../src/engine/onnx/runtime.ts";
import { createGraph } from "../../src/graph/builder.ts";
import { matricesOf } from "../../src/graph/matrices.ts";
import { encodeModel } from "../../src/graph/proto/onnx.ts";
import { createWeights } from "../../src/graph/weights.ts";
import { openCheckpoint } from "../../src/model/open.ts";

/** Opens packed weights in a process of their own and says what a session of all matrices costs it. */
const [directory = "", precision = "", cacheDir = ""] = process.argv.slice(2);
const checkpoint = await openCheckpoint(directory);
const packed = await packedWeights(checkpoint, precision as "fp32", cacheDir);

function anonymousBytes(): number {
  const match = /RssAnon:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"));
  return match ? Number(match[1]) * 1024 : 0;
}

const g = createGraph("all");
const weights = createWeights(g, checkpoint, packed.matrices);
const inputs = new Map<number, ReturnType<typeof g.input>>();
for (const matrix of matricesOf(checkpoint.config)) {
  const { columns } = matrix;
  const x = inputs.get(columns) ?? g.input(`x.${columns}`, "float", ["N", columns]);
  inputs.set(columns, x);
  g.output(weights.product(x, matrix));
}
const model = encodeModel(g.build());
const before = anonymousBytes();
const session = createSession(model, { threads: 1, device: "cpu" });
const grown = anonymousBytes() - before;
session.dispose();
process.stdout.write(JSON.stringify({ key: packed.key, bytes: packed.bytes, grown }));
