import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { fail } from "../errors.ts";
import { MAX_TEMPLATE_CHARS, MAX_TOKENIZER_FILE_BYTES } from "./limits.ts";
import { parseTokenizer, type TokenizerSpec } from "./tokenizer-file.ts";

/** What a checkpoint directory says about text. */
export interface ModelFiles {
  tokenizer: TokenizerSpec;
  /** `bos_token`, `eos_token`, … → content: the variables templates expect. */
  namedTokens: Readonly<Record<string, string>>;
  /** `additional_special_tokens` */
  moreSpecialTokens: readonly string[];
  chatTemplate: string | null;
  /** Raw texts begin with BOS even where the post-processor does not say so. */
  addBos: boolean;
}

/** A token is written as its content or as an object with it. */
const tokenName = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)]);
const named = z.object({
  bos_token: tokenName.nullish().catch(null),
  eos_token: tokenName.nullish().catch(null),
  unk_token: tokenName.nullish().catch(null),
  pad_token: tokenName.nullish().catch(null),
  sep_token: tokenName.nullish().catch(null),
  cls_token: tokenName.nullish().catch(null),
  mask_token: tokenName.nullish().catch(null),
  additional_special_tokens: z.array(tokenName).nullish().catch(null),
});
const templates = z.union([
  z.string(),
  z
    .array(z.object({ name: z.string(), template: z.string() }))
    // Several named templates (tool use, retrieval): the plain one.
    .transform((list) => (list.find(({ name }) => name === "default") ?? list[0])?.template ?? null),
]);
const config = named.extend({
  chat_template: templates.nullish().catch(null),
  add_bos_token: z.boolean().nullish().catch(null),
  added_tokens_decoder: z.record(z.string(), z.record(z.string(), z.unknown())).nullish().catch(null),
});

/** Reads the tokenizer and template files of a directory. Throws `invalid_tokenizer`. */
export async function readModelFiles(directory: string): Promise<ModelFiles> {
  const text = await readText(directory, "tokenizer.json");
  if (text === null) throw await missingTokenizer(directory);
  const settings = config.parse(await readObject(directory, "tokenizer_config.json"));
  const map = named.parse(await readObject(directory, "special_tokens_map.json"));
  const { additional_special_tokens: ofMap, ...namesOfMap } = map;
  const {
    additional_special_tokens: ofConfig,
    chat_template: inConfig,
    added_tokens_decoder: added,
    add_bos_token: addBos,
    ...names
  } = settings;
  const namedTokens = { ...present(namesOfMap), ...present(names) };
  const moreSpecialTokens = ofConfig ?? ofMap ?? [];
  return {
    tokenizer: parseTokenizer(text, {
      added: Object.entries(added ?? {}).map(([id, token]) => ({ ...token, id: Number(id) })),
      named: [...Object.values(namedTokens), ...moreSpecialTokens],
    }),
    namedTokens,
    moreSpecialTokens,
    chatTemplate: await findTemplate(directory, inConfig ?? null),
    addBos: addBos === true,
  };
}

const present = (names: Record<string, string | null | undefined>): Record<string, string> =>
  Object.fromEntries(Object.entries(names).flatMap(([name, content]) => (content ? [[name, content]] : [])));

/** The separate file wins over tokenizer_config.json, as in Transformers. */
async function findTemplate(directory: string, inConfig: string | null): Promise<string | null> {
  const file = await readText(directory, "chat_template.jinja");
  const other = z.object({ chat_template: templates }).safeParse(await readObject(directory, "chat_template.json"));
  const template = file ?? inConfig ?? other.data?.chat_template ?? null;
  if (template !== null && template.length > MAX_TEMPLATE_CHARS) {
    throw fail(
      "invalid_tokenizer",
      `the chat template of ${basename(directory)} is larger than ${MAX_TEMPLATE_CHARS} characters`,
    );
  }
  return template;
}

/** null: there is no such file. */
async function readText(directory: string, name: string): Promise<string | null> {
  const path = join(directory, name);
  const info = await stat(path).catch(() => null);
  if (!info?.isFile()) return null;
  if (info.size > MAX_TOKENIZER_FILE_BYTES) {
    throw fail(
      "invalid_tokenizer",
      `${name} of ${basename(directory)} is larger than ${MAX_TOKENIZER_FILE_BYTES} bytes`,
    );
  }
  return await readFile(path, "utf8").catch((cause: unknown) => {
    throw fail("invalid_tokenizer", `${name} of ${basename(directory)} cannot be read; check its permissions`, {
      cause,
    });
  });
}

/** {}: there is no such file. */
async function readObject(directory: string, name: string): Promise<Record<string, unknown>> {
  const text = await readText(directory, name);
  if (text === null) return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw fail("invalid_tokenizer", `${name} of ${basename(directory)} is not a JSON object; download the model again`);
}

async function missingTokenizer(directory: string): Promise<Error> {
  const name = basename(directory);
  for (const slow of ["tokenizer.model", "vocab.json", "tekken.json"]) {
    const exists = await stat(join(directory, slow)).catch(() => null);
    if (!exists) continue;
    const convert = `python -c "from transformers import AutoTokenizer as T; T.from_pretrained('${name}').save_pretrained('${name}')"`;
    return fail("invalid_tokenizer", `${name} has ${slow} but no tokenizer.json; convert it once with: ${convert}`);
  }
  return fail("invalid_tokenizer", `${name} has no tokenizer.json; download the whole model, tokenizer files included`);
}
