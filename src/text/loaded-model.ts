import { createHash } from "node:crypto";
import { fail, PreceptorError } from "../errors.ts";
import type { Segment } from "./added-tokens.ts";
import { type Chat, createChat, joinTexts, textOf } from "./chat.ts";
import { type ModelFiles, readModelFiles } from "./model-files.ts";
import { wellFormed } from "./normalizer.ts";
import type { Encoded, PromptRequest, TextModel } from "./text.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

/** A model's text side as it lives in the worker. */
export interface LoadedModel {
  /** sha256 of everything that decides its answers. */
  readonly identity: string;
  readonly tokenizer: Tokenizer;
  readonly hasChatTemplate: boolean;
  readonly eosIds: readonly number[];
  encode(text: string, options: Parameters<TextModel["encode"]>[1]): Encoded;
  encodePrompt(request: PromptRequest): Encoded;
}

/** Templates that requests bring; one service uses a handful at most. */
const MAX_REQUEST_TEMPLATES = 8;

/** @param share gives a tokenizer that is loaded already, by its hash. Throws `invalid_tokenizer`. */
export async function loadModel(
  directory: string,
  share: (hash: string) => Tokenizer | undefined,
): Promise<LoadedModel> {
  try {
    const files = await readModelFiles(directory);
    const tokenizer = share(files.tokenizer.hash) ?? createTokenizer(files.tokenizer);
    return assemble(files, tokenizer);
  } catch (error) {
    if (error instanceof PreceptorError) throw error;
    const reason = error instanceof Error ? error.message.slice(0, 200) : "unknown reason";
    throw fail("invalid_tokenizer", `the tokenizer cannot be loaded: ${reason}`, { cause: error });
  }
}

function assemble(files: ModelFiles, tokenizer: Tokenizer): LoadedModel {
  const variables = { ...files.namedTokens, additional_special_tokens: files.moreSpecialTokens };
  const idOf = (content: string | undefined): number | undefined =>
    tokenizer.addedTokens.find((token) => token.content === content)?.id ??
    files.tokenizer.model.vocab.get(content ?? "");
  const chat =
    files.chatTemplate === null ? null : once(() => createChat(tokenizer, files.chatTemplate ?? "", variables));
  const contentTokens = attempt(chat)?.contentTokens ?? tokenizer.plainTokens(new Set());
  const everyToken = tokenizer.plainTokens(new Set());
  const bosId = idOf(files.namedTokens.bos_token);
  const bos: Segment[] =
    files.addBos && tokenizer.before.length === 0 && bosId !== undefined
      ? [{ kind: "token", id: bosId, text: files.namedTokens.bos_token ?? "" }]
      : [];

  return {
    identity: hashOf([tokenizer.hash, files.chatTemplate, variables, files.addBos]),
    tokenizer,
    hasChatTemplate: chat !== null,
    eosIds: eosIds(idOf(files.namedTokens.eos_token), attempt(chat), tokenizer),
    encode(text, { parseSpecial, addSpecial }) {
      const raw: Segment[] = parseSpecial ? tokenizer.splitSpecial(wellFormed(text)) : [{ kind: "text", text }];
      const proper = joinTexts(
        raw.map((part) => (part.kind === "text" ? { ...part, text: tokenizer.normalizer.field(part.text) } : part)),
      );
      const before = addSpecial ? [...bos, ...tokenizer.before] : [];
      const segments = addSpecial ? [...before, ...proper, ...tokenizer.after] : proper;
      const plain = parseSpecial ? everyToken : contentTokens;
      return { ...tokenizer.encode(segments, plain, before.length), text: textOf(segments), fields: {} };
    },
    encodePrompt: promptEncoder(chat, (source) => createChat(tokenizer, source, variables)),
  };
}

function promptEncoder(chat: (() => Chat) | null, create: (source: string) => Chat): LoadedModel["encodePrompt"] {
  const brought = new Map<string, Chat>();
  return (request) => {
    if (chat) return chat().encodePrompt(request);
    const source = request.chatTemplate;
    if (source === undefined) {
      throw fail(
        "chat_template_missing",
        "this model has no chat template; use a format with a template of its own, or add chat_template.jinja to the model",
      );
    }
    const made = brought.get(source) ?? create(source);
    if (brought.size >= MAX_REQUEST_TEMPLATES) brought.clear();
    brought.set(source, made);
    return made.encodePrompt(request);
  };
}

/** What tokenizer_config.json names, and the token that the template ends an assistant's turn with. */
function eosIds(eos: number | undefined, chat: Chat | undefined, tokenizer: Tokenizer): number[] {
  const end = chat?.endOfTurn?.find((segment) => segment.kind === "token");
  const special = end && tokenizer.addedTokens.some(({ id, special }) => id === end.id && special);
  return [...new Set([...(eos === undefined ? [] : [eos]), ...(end && special ? [end.id] : [])])];
}

/** The value, made at first use; a failure is kept as well. A broken template must not keep a model from loading. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | { error: unknown } | undefined;
  return () => {
    if (!made) {
      try {
        made = { value: make() };
      } catch (error) {
        made = { error };
      }
    }
    if ("error" in made) throw made.error;
    return made.value;
  };
}

function attempt<T>(make: (() => T) | null): T | undefined {
  try {
    return make?.();
  } catch {
    return undefined;
  }
}

const hashOf = (value: unknown): string => createHash("sha256").update(JSON.stringify(value)).digest("hex");
