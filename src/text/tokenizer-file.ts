import { createHash } from "node:crypto";
import { z } from "zod";
import { fail, type PreceptorError } from "../errors.ts";
import { MAX_VOCABULARY } from "./limits.ts";

/** A component of tokenizer.json: `{ "type": "NFC" }`, `{ "type": "Split", "pattern": … }`, … */
export type Component = Readonly<{ type: string } & Record<string, unknown>>;

export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
  /** Matched in the normalised text instead of the raw one. */
  normalized: boolean;
  /** The token swallows white space on that side. */
  lstrip: boolean;
  rstrip: boolean;
  /** Matches only where no word character touches it. */
  singleWord: boolean;
}

/** tokenizer.json, checked, sequences flattened. */
export interface TokenizerSpec {
  /** sha256 of everything below, in a canonical form: `sha256:…` */
  hash: string;
  addedTokens: readonly AddedToken[];
  normalizers: readonly Component[];
  preTokenizers: readonly Component[];
  postProcessors: readonly Component[];
  decoders: readonly Component[];
  model: BpeSpec;
}

export interface BpeSpec {
  vocab: ReadonlyMap<string, number>;
  merges: readonly (readonly [string, string])[];
  unkToken: string | null;
  fuseUnk: boolean;
  byteFallback: boolean;
  ignoreMerges: boolean;
}

const component = z.looseObject({ type: z.string() });
const addedToken = z.object({
  id: z
    .int()
    .min(0)
    .max(MAX_VOCABULARY - 1),
  content: z.string().min(1),
  special: z.boolean().default(false),
  normalized: z.boolean().optional(),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  single_word: z.boolean().default(false),
});
const file = z.object({
  added_tokens: z.array(addedToken).nullish(),
  normalizer: component.nullish(),
  pre_tokenizer: component.nullish(),
  post_processor: component.nullish(),
  decoder: component.nullish(),
  model: z.looseObject({
    type: z.string().optional(),
    unk_token: z.string().nullish(),
    fuse_unk: z.boolean().nullish(),
    byte_fallback: z.boolean().nullish(),
    ignore_merges: z.boolean().nullish(),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
  }),
});

/** Says that tokenizer.json asks for something we do not do, and what to do about it. */
export const unsupported = (what: string): PreceptorError =>
  fail("invalid_tokenizer", `tokenizer.json uses ${what}, which is not supported; use a model with a BPE tokenizer`);

const broken = (why: string): PreceptorError =>
  fail("invalid_tokenizer", `tokenizer.json is broken: ${why}; download the model again`);

/** What tokenizer_config.json adds to tokenizer.json; Transformers applies it on loading. */
export interface ConfiguredTokens {
  /** `added_tokens_decoder`, as in tokenizer.json. */
  added: readonly unknown[];
  /** Contents of bos, eos, …: special, whatever their flag says. */
  named: readonly string[];
}

/** Parses the text of tokenizer.json. Throws `invalid_tokenizer`. */
export function parseTokenizer(text: string, configured: ConfiguredTokens = { added: [], named: [] }): TokenizerSpec {
  const parsed = file.safeParse(parseJson(text));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw broken(`${issue?.path.join(".") || "the file"}: ${issue?.message ?? "not valid"}`);
  }
  const data = parsed.data;
  const model = toBpe(data.model);
  const spec = {
    addedTokens: collectAdded(data.added_tokens ?? [], configured, model.vocab),
    normalizers: flatten(data.normalizer, "normalizers"),
    preTokenizers: flatten(data.pre_tokenizer, "pretokenizers"),
    postProcessors: flatten(data.post_processor, "processors"),
    decoders: flatten(data.decoder, "decoders"),
    model,
  };
  return { hash: hashOf(spec), ...spec };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw broken(error instanceof Error ? error.message : "not JSON");
  }
}

function collectAdded(
  listed: readonly z.infer<typeof addedToken>[],
  { added, named }: ConfiguredTokens,
  vocab: ReadonlyMap<string, number>,
): AddedToken[] {
  const tokens = new Map<string, AddedToken>();
  const more = added.flatMap((token) => addedToken.safeParse(token).data ?? []);
  for (const token of [...listed, ...more]) {
    if (!tokens.has(token.content)) tokens.set(token.content, toAddedToken(token));
  }
  for (const content of named) {
    const token = tokens.get(content);
    const id = token?.id ?? vocab.get(content);
    // A pad token may be an ordinary word ("!"): only what looks like a tag, or was added, is a control token.
    if (id === undefined || content.trim() === "" || !(token || isTag(content))) continue;
    const flags = { normalized: false, lstrip: false, rstrip: false, singleWord: false };
    tokens.set(content, { ...flags, ...token, id, content, special: true });
  }
  return [...tokens.values()].sort((a, b) => a.id - b.id);
}

/** `<|im_end|>`, `</s>`, `[INST]`, `<｜User｜>`, `▁<EOT>`: written like a control token. */
export const isTag = (content: string): boolean => /^▁?[<[({|｜].+[>\])}|｜]$/su.test(content);

function toAddedToken(token: z.infer<typeof addedToken>): AddedToken {
  const { single_word: singleWord, normalized, ...rest } = token;
  return { ...rest, singleWord, normalized: normalized ?? !token.special };
}

/** A component, or the members of a (nested) Sequence. */
function flatten(config: Component | null | undefined, members: string, depth = 0): Component[] {
  if (!config) return [];
  if (config.type !== "Sequence") return [config];
  if (depth > 8) throw broken("sequences are nested too deeply");
  const list = z.array(component).safeParse(config[members]);
  if (!list.success) throw broken(`a Sequence without ${members}`);
  return list.data.flatMap((member) => flatten(member, members, depth + 1));
}

function toBpe(model: z.infer<typeof file>["model"]): BpeSpec {
  // Files older than tokenizers 0.9 leave the type out; merges give a BPE away.
  const type = model.type ?? (Array.isArray(model.merges) ? "BPE" : "an unnamed");
  if (type !== "BPE") throw unsupported(`${type} as its model`);
  if (model.end_of_word_suffix) throw unsupported("an end-of-word suffix");
  if (model.continuing_subword_prefix) throw unsupported("a continuing-subword prefix");
  return {
    vocab: toVocab(model.vocab),
    merges: toMerges(model.merges),
    unkToken: model.unk_token ?? null,
    fuseUnk: model.fuse_unk ?? false,
    byteFallback: model.byte_fallback ?? false,
    ignoreMerges: model.ignore_merges ?? false,
  };
}

function toVocab(vocab: unknown): Map<string, number> {
  if (typeof vocab !== "object" || vocab === null || Array.isArray(vocab)) throw broken("model.vocab is not an object");
  const entries = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!Number.isInteger(id) || id < 0 || id >= MAX_VOCABULARY) {
      throw broken(`model.vocab gives the id ${String(id).slice(0, 40)} to ${JSON.stringify(token.slice(0, 40))}`);
    }
    entries.set(token, id);
  }
  if (entries.size === 0) throw broken("model.vocab is empty");
  return entries;
}

/** Merges are `"a b"` in older files, `["a", "b"]` in newer ones. */
function toMerges(merges: unknown): [string, string][] {
  if (!Array.isArray(merges)) throw broken("model.merges is not a list");
  if (merges.length > MAX_VOCABULARY) throw broken("model.merges is too long");
  return merges.map((merge: unknown, i) => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== "string" || typeof pair[1] !== "string") {
      throw broken(`model.merges.${i} is not a pair of tokens`);
    }
    return [pair[0], pair[1]];
  });
}

/** Equal for copies, other spellings of the same file (key order, merge format, padding settings) included. */
function hashOf(spec: Omit<TokenizerSpec, "hash">): string {
  const hash = createHash("sha256");
  const { model, ...components } = spec;
  const { vocab, merges, ...flags } = model;
  hash.update(canonical({ ...components, flags }));
  for (const [token, id] of [...vocab].sort((a, b) => a[1] - b[1] || (a[0] < b[0] ? -1 : 1))) {
    hash.update(`\n${id} ${JSON.stringify(token)}`);
  }
  for (const [left, right] of merges) hash.update(`\n${JSON.stringify(left)} ${JSON.stringify(right)}`);
  return `sha256:${hash.digest("hex")}`;
}

/** JSON with sorted keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
