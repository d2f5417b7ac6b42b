import { fail } from "../../errors.ts";
import type { ModelRegistry, ModelText } from "../models/registry.ts";
import { toChatMessages } from "./chat-messages.ts";
import { MAX_TOKENIZE_CHARS } from "./limits.ts";
import { checkIds, templateOf } from "./prompts.ts";
import type { DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse } from "./schemas-tokenize.ts";
import { tokenText } from "./token-text.ts";

/** `POST /v1/tokenize` and `/v1/detokenize`: only the tokenizer is opened, no weights are loaded. */
export interface Tokenization {
  tokenize(body: TokenizeRequest): Promise<TokenizeResponse>;
  detokenize(body: DetokenizeRequest): Promise<DetokenizeResponse>;
}

export function createTokenization({ registry }: { registry: Pick<ModelRegistry, "text"> }): Tokenization {
  return {
    async tokenize(body) {
      checkInput(body);
      const model = await registry.text(body.model, { param: "model" });
      const tokens = Array.from(await encode(model, body));
      return {
        tokens,
        count: tokens.length,
        max_model_len: model.contextLength,
        ...(body.return_token_strs ? { token_strs: tokens.map((id) => tokenText(model.text, id)) } : {}),
      };
    },
    async detokenize(body) {
      const { text, vocabSize } = await registry.text(body.model, { param: "model" });
      const ids = checkIds(body.tokens, vocabSize ?? text.size, "tokens");
      return { prompt: await text.decode(ids, { special: true }) };
    },
  };
}

async function encode(model: ModelText, body: TokenizeRequest): Promise<Int32Array> {
  if (typeof body.prompt === "string") {
    const addSpecial = body.add_special_tokens ?? true;
    return (await model.text.encode(body.prompt, { parseSpecial: true, addSpecial })).ids;
  }
  const messages = toChatMessages(body.messages ?? []);
  const chars = messages.reduce((sum, message) => sum + message.content.length, 0);
  if (chars > MAX_TOKENIZE_CHARS) {
    throw fail("invalid_value", `the messages have ${chars} characters; at most ${MAX_TOKENIZE_CHARS}`, {
      param: "messages",
    });
  }
  return (await model.text.encodePrompt({ messages, ...templateOf(model.format) })).ids;
}

function checkInput({ prompt, messages, add_special_tokens, add_generation_prompt }: TokenizeRequest): void {
  const chat = Array.isArray(messages);
  if ((typeof prompt === "string") === chat) {
    throw fail("invalid_value", "give either prompt or messages", { param: chat ? "messages" : "prompt" });
  }
  if (chat && add_special_tokens) {
    throw fail("unsupported_parameter", "a chat has the special tokens of its template, no others can be added", {
      param: "add_special_tokens",
    });
  }
  if (add_generation_prompt === false) {
    throw fail("unsupported_parameter", "chats are always rendered with the beginning of the assistant's turn", {
      param: "add_generation_prompt",
    });
  }
}
