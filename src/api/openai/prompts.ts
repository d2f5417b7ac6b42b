import { fail } from "../../errors.ts";
import type { FormatSpec } from "../../rlt/formats.ts";
import type { ChatMessage } from "../../text/text.ts";
import type { HeldModel } from "../models/registry.ts";
import { MAX_CHARS_PER_TOKEN, MAX_PROMPTS } from "./limits.ts";

/** `prompt` of a completion: a text, texts, ids, or lists of ids. */
export type PromptInput = string | string[] | number[] | number[][];

export type Prompt = { text: string; param: string } | { ids: readonly number[]; param: string };

/** What the model reads, and what `echo` repeats. */
export interface EncodedPrompt {
  /** (P), P ≥ 1 */
  ids: Int32Array;
  /** Empty where nobody asked for it. */
  text: string;
}

/** The prompts of a request, one by one. A list of numbers is one prompt of ids. Throws `invalid_value`. */
export function splitPrompts(input: unknown): Prompt[] {
  if (typeof input === "string") return [{ text: input, param: "prompt" }];
  if (!Array.isArray(input)) throw invalid("prompt must be a text, token ids, or a list of them", "prompt");
  if (input.length === 0) throw invalid("prompt is an empty list; give at least one text or token id", "prompt");
  if (typeof input[0] === "number") return [{ ids: input as number[], param: "prompt" }];
  if (input.length > MAX_PROMPTS) {
    throw invalid(`${input.length} prompts in one request; at most ${MAX_PROMPTS}, send the rest in another`, "prompt");
  }
  const kind = typeof input[0];
  return input.map((item: unknown, i) => {
    const param = `prompt.${i}`;
    if (kind === "string" && typeof item === "string") return { text: item, param };
    if (kind !== "string" && Array.isArray(item)) return { ids: item as number[], param };
    throw invalid("a list of prompts holds only texts, or only lists of token ids", param);
  });
}

export interface EncodeOptions {
  addSpecial: boolean;
  /** The text of a prompt of ids is wanted too. */
  echo: boolean;
  signal: AbortSignal;
}

/** Raw prompts parse special tokens, as vLLM does. Throws `invalid_token_ids`, `invalid_value`, `context_length_exceeded`. */
export async function encodeRawPrompt(
  held: HeldModel,
  prompt: Prompt,
  { addSpecial, echo, signal }: EncodeOptions,
): Promise<EncodedPrompt> {
  if ("ids" in prompt) {
    const ids = checkIds(prompt.ids, held.engine.vocabSize, prompt.param);
    if (ids.length === 0) throw invalid("the prompt has no tokens; give at least one", prompt.param);
    return { ids, text: echo ? await held.text.decode(ids, { special: true }) : "" };
  }
  checkLength(prompt.text.length, held.contextLength, prompt.param);
  const { ids } = await held.text.encode(prompt.text, { parseSpecial: true, addSpecial });
  if (signal.aborted) throw fail("cancelled", "the client went away");
  if (ids.length === 0) throw invalid("the prompt is empty; give at least one character", prompt.param);
  return { ids, text: prompt.text };
}

/** A chat through the model's template; contents are text, never control tokens. */
export async function encodeChat(held: HeldModel, messages: readonly ChatMessage[]): Promise<EncodedPrompt> {
  const chars = messages.reduce((sum, message) => sum + message.content.length, 0);
  checkLength(chars, held.contextLength, "messages");
  const { ids, text } = await held.text.encodePrompt({ messages, ...templateOf(held.format) });
  return { ids, text };
}

/** A custom format may bring the template that the checkpoint lacks. */
export function templateOf(format: FormatSpec): { chatTemplate?: string } {
  const template = typeof format === "object" ? format.chat_template : undefined;
  return template === undefined ? {} : { chatTemplate: template };
}

/** A prompt with room for at least one token behind it, or without when nothing is to be sampled. */
export function checkContext(prompt: EncodedPrompt, contextLength: number, maxTokens: number, param: string): void {
  const length = prompt.ids.length;
  if (length > contextLength || (length === contextLength && maxTokens > 0)) {
    const room = length === contextLength ? ", which leaves no room for a completion" : "";
    throw tooLong(`the prompt has ${length} tokens${room}`, contextLength, param);
  }
}

/** (T) ids as the engine takes them; `bound` is one past the last id. */
export function checkIds(ids: readonly unknown[], bound: number, param: string): Int32Array {
  const out = new Int32Array(ids.length);
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= bound) {
      const shown = typeof id === "number" ? String(id) : `a ${id === null ? "null" : typeof id}`;
      throw fail("invalid_token_ids", `${shown} is not a token id of this model; ids are 0 to ${bound - 1}`, {
        param: `${param}.${i}`,
      });
    }
    out[i] = id;
  }
  return out;
}

/** Tokenising a text that cannot fit would block the text thread for nothing. */
function checkLength(chars: number, contextLength: number, param: string): void {
  if (chars <= contextLength * MAX_CHARS_PER_TOKEN) return;
  throw tooLong(`the prompt has ${chars} characters, more than that many tokens can hold`, contextLength, param);
}

function tooLong(what: string, contextLength: number, param: string): Error {
  return fail(
    "context_length_exceeded",
    `this model's maximum context length is ${contextLength} tokens, but ${what}; shorten the prompt`,
    { param },
  );
}

function invalid(message: string, param: string): Error {
  return fail("invalid_value", message, { param });
}
