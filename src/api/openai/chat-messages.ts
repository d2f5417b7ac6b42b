import { fail } from "../../errors.ts";
import type { ChatMessage } from "../../text/text.ts";
import { type NeutralTable, refuseUnsupported } from "./neutral-fields.ts";
import type { ChatMessageInput } from "./schemas-chat.ts";

/** Fields of OpenAI's messages that templates do not show. */
const MESSAGE_NEUTRAL: NeutralTable = {
  name: { values: [""], instead: "templates do not show it; put it into the content" },
  refusal: { values: [""], instead: "put it into the content" },
  audio: { values: [], instead: "messages are text" },
  tool_calls: { values: [[]], instead: "tools are not implemented" },
  function_call: { values: [], instead: "function calls are not implemented" },
};

/** Messages as templates take them. Throws `unsupported_parameter` for anything that is not text. */
export function toChatMessages(messages: readonly ChatMessageInput[]): ChatMessage[] {
  return messages.map((message, i) => {
    refuseUnsupported(message, MESSAGE_NEUTRAL, `messages.${i}.`);
    return {
      role: message.role === "developer" ? "system" : message.role,
      content: contentText(message, `messages.${i}.content`),
    };
  });
}

/** Text parts follow each other on new lines, as vLLM joins them. */
function contentText({ role, content }: ChatMessageInput, param: string): string {
  if (typeof content === "string") return content;
  if (content === null || content === undefined) {
    if (role === "assistant") return "";
    throw fail("invalid_value", `a message of role ${role} needs a content`, { param });
  }
  const texts = content.map((part, i) => {
    if (part.type === "text" && typeof part.text === "string") return part.text;
    if (part.type === "text") throw fail("invalid_value", "a text part needs a text", { param: `${param}.${i}.text` });
    const type = part.type.slice(0, 64);
    throw fail("unsupported_parameter", `content parts of type "${type}" are not supported; send text`, {
      param: `${param}.${i}.type`,
    });
  });
  return texts.join("\n");
}
