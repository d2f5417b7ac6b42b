import { parentPort } from "node:worker_threads";
import { fail } from "../errors.ts";
import { createPeer, Transferred } from "../thread/peer.ts";
import { MAX_MODELS } from "./limits.ts";
import { type LoadedModel, loadModel } from "./loaded-model.ts";
import type { EncodeCall, OpenCall, OpenReply, PromptCall } from "./protocol.ts";
import type { Encoded } from "./text.ts";

if (!parentPort) throw new Error("text/worker.ts runs in a worker thread");

/** Least recently used first. */
const models = new Map<string, LoadedModel>();

createPeer(parentPort, {
  ready: () => true,
  open: async ({ directory, known }: OpenCall): Promise<OpenReply> => {
    const model = keep(await load(directory));
    const { tokenizer } = model;
    return {
      identity: model.identity,
      tokenizerHash: tokenizer.hash,
      hasChatTemplate: model.hasChatTemplate,
      eosIds: model.eosIds,
      stripsSpace: tokenizer.stripsSpace,
      bytes: known.includes(tokenizer.hash) ? null : tokenizer.bytes,
    };
  },
  encode: async ({ model, text, parseSpecial, addSpecial }: EncodeCall) =>
    transferred((await find(model)).encode(text, { parseSpecial, addSpecial })),
  encodePrompt: async ({ model, request }: PromptCall) => transferred((await find(model)).encodePrompt(request)),
});

function load(directory: string): Promise<LoadedModel> {
  return loadModel(directory, (hash) =>
    [...models.values()].map(({ tokenizer }) => tokenizer).find((tokenizer) => tokenizer.hash === hash),
  );
}

/** The model of a caller; read again when it was dropped, or when this thread replaces one that died. */
async function find({ identity, directory }: EncodeCall["model"]): Promise<LoadedModel> {
  const model = models.get(identity) ?? (await load(directory));
  if (model.identity !== identity) {
    throw fail("invalid_tokenizer", "the model's tokenizer files have changed since it was loaded; register it again");
  }
  return keep(model);
}

function keep(model: LoadedModel): LoadedModel {
  models.delete(model.identity);
  models.set(model.identity, model);
  for (const oldest of models.keys()) {
    if (models.size <= MAX_MODELS) break;
    models.delete(oldest);
  }
  return model;
}

const transferred = (encoded: Encoded): Transferred =>
  new Transferred(encoded, [encoded.ids.buffer, encoded.ends.buffer] as ArrayBuffer[]);
