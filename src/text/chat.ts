import { fail } from "../errors.ts";
import { type AddedTokenMatcher, createMatcher, type Segment } from "./added-tokens.ts";
import { type ChatTemplate, compileTemplate } from "./chat-template.ts";
import { createNeutraliser } from "./neutralise.ts";
import type { ByteRange, ChatMessage, Encoded, PromptRequest, TextPart } from "./text.ts";
import type { PlainTokens, Tokenizer } from "./tokenizer.ts";
import { isTag } from "./tokenizer-file.ts";

/** A tokenizer together with a chat template: which of the tokens are the template's, and prompts made with both. */
export interface Chat {
  encodePrompt(request: PromptRequest): Encoded;
  /** Ordinary added tokens that match in contents. */
  readonly contentTokens: PlainTokens;
  /** What ends an assistant's turn, as segments. */
  readonly endOfTurn: readonly Segment[] | null;
}

export function createChat(tokenizer: Tokenizer, source: string, variables: Readonly<Record<string, unknown>>): Chat {
  const form = tokenizer.normalizer.sourceForm;
  const template = compileTemplate(form ? source.normalize(form) : source, variables);
  const tokens = classify(tokenizer, template);
  const contentTokens = tokenizer.plainTokens(tokens.control);
  const cut = tokens.cut.split;
  return {
    contentTokens,
    endOfTurn: template.endOfTurn === null ? null : cut(template.endOfTurn),
    encodePrompt({ messages, assistant = [], endOfTurn = false }) {
      const parts = assistant.map((part) => ({ ...part, text: tokenizer.normalizer.field(part.text) }));
      const segments = renderMessages(tokenizer, template, tokens, messages);
      const fields = fieldRanges(byteLength(segments), parts);
      for (const part of parts) segments.push(...assistantSegments(part, tokens.tags));
      if (endOfTurn) segments.push(...cut(endOfTurnOf(template, variables)));
      const joined = joinTexts(segments);
      const { ids, ends } = tokenizer.encode(joined, contentTokens);
      return { ids, ends, text: textOf(joined), fields };
    },
  };
}

interface TokenClasses {
  /** Contents of all that never match in contents: special tokens and the tags the template writes. */
  control: ReadonlySet<string>;
  /** The template's output is cut at these, and they are hidden in the contents of users. */
  cut: AddedTokenMatcher;
  /** Special tokens and turn tokens: hidden in earlier assistant turns, which may contain the template's other tags. */
  frame: AddedTokenMatcher;
  /** `control` without `frame`: tags such as <think>, which a format may write itself. */
  tags: AddedTokenMatcher;
}

/**
 * Some checkpoints do not flag their control tokens as special (Qwen3's <think>, some end-of-turn tokens). Those that the
 * template writes, or names in its source, count as control tokens as well; white space and words never do.
 */
function classify({ addedTokens }: Tokenizer, template: ChatTemplate): TokenClasses {
  const frame = addedTokens.filter(
    ({ special, content }) => special || (isTag(content) && template.frame.includes(content)),
  );
  const inFrame = new Set(frame);
  const tags = addedTokens.filter(
    (token) => !inFrame.has(token) && isTag(token.content) && template.source.includes(token.content),
  );
  const all = [...frame, ...tags];
  return {
    control: new Set(all.map(({ content }) => content)),
    cut: createMatcher(all),
    frame: createMatcher(frame),
    tags: createMatcher(tags),
  };
}

/** The template's text for the messages, ready for the assistant's turn, cut at its control tokens. */
function renderMessages(
  { normalizer }: Tokenizer,
  template: ChatTemplate,
  tokens: TokenClasses,
  messages: readonly ChatMessage[],
): Segment[] {
  const normalised = messages.map(({ role, content }) => ({
    role: normalizer.field(role),
    content: normalizer.field(content),
  }));
  const placed = template.acceptsSystem ? normalised : systemIntoUser(normalised);
  const texts = placed.flatMap(({ role, content }) => [role, content]);
  const { hide, restore } = createNeutraliser([template.source, ...texts]);
  const hidden = placed.map(({ role, content }) => ({
    role: hide(role, tokens.cut),
    content: hide(content, role === "assistant" ? tokens.frame : tokens.cut),
  }));
  const rendered = template.render(hidden, { addGenerationPrompt: true });
  return tokens.cut.split(rendered).map((segment) => ({ ...segment, text: restore(segment.text) }));
}

/** For templates without a system role: what the system says goes to the head of the first user turn. */
function systemIntoUser(messages: readonly ChatMessage[]): ChatMessage[] {
  const firstOther = messages.findIndex(({ role }) => role !== "system");
  const count = firstOther < 0 ? messages.length : firstOther;
  if (count === 0) return [...messages];
  const system = messages.slice(0, count).map(({ content }) => content);
  const [next, ...rest] = messages.slice(count);
  if (next?.role === "user") return [{ role: "user", content: [...system, next.content].join("\n\n") }, ...rest];
  return [{ role: "user", content: system.join("\n\n") }, ...(next ? [next, ...rest] : [])];
}

/** A format's own text (no field) may write the template's tags; a field is content, hence plain text throughout. */
function assistantSegments(part: TextPart, tags: AddedTokenMatcher): Segment[] {
  return part.field === undefined ? tags.split(part.text) : [{ kind: "text", text: part.text }];
}

function endOfTurnOf(template: ChatTemplate, variables: Readonly<Record<string, unknown>>): string {
  if (template.endOfTurn !== null) return template.endOfTurn;
  if (typeof variables.eos_token === "string") return variables.eos_token;
  throw fail(
    "chat_template_failed",
    "the chat template does not show how an assistant's turn ends, and the tokenizer names no eos_token; use another template",
  );
}

function fieldRanges(start: number, parts: readonly TextPart[]): Record<string, ByteRange> {
  const fields: Record<string, ByteRange> = {};
  let at = start;
  for (const { text, field } of parts) {
    const end = at + Buffer.byteLength(text);
    if (field !== undefined) fields[field] = { start: at, end };
    at = end;
  }
  return fields;
}

/** Neighbouring stretches of text become one: pieces encoded one by one have other ids than the whole. */
export function joinTexts(segments: readonly Segment[]): Segment[] {
  const joined: Segment[] = [];
  for (const segment of segments) {
    const last = joined.at(-1);
    if (segment.kind === "text" && last?.kind === "text") last.text += segment.text;
    else if (segment.kind === "token" || segment.text.length > 0) joined.push({ ...segment });
  }
  return joined;
}

export const textOf = (segments: readonly Segment[]): string => segments.map(({ text }) => text).join("");

const byteLength = (segments: readonly Segment[]): number =>
  segments.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
