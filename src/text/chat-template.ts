import { fail, PreceptorError } from "../errors.ts";
import { MAX_RENDERED_CHARS, MAX_TEMPLATE_CHARS, RENDER_LIMIT_MS } from "./limits.ts";
import { parseTemplate } from "./template-runtime.ts";
import type { ChatMessage } from "./text.ts";
import { withTimeLimit } from "./time-limit.ts";

/** A compiled chat template, and what trying it out tells about it. */
export interface ChatTemplate {
  readonly source: string;
  /** Throws `chat_template_failed` with what the template itself says. */
  render(messages: readonly ChatMessage[], options: { addGenerationPrompt: boolean }): string;
  /** False where the template refuses or drops a system message. */
  readonly acceptsSystem: boolean;
  /** What the template writes around the contents of user and system turns: only here its turn tokens show up. */
  readonly frame: string;
  /** What it writes after an assistant's text; null when that cannot be seen. */
  readonly endOfTurn: string | null;
}

/** Words no template contains, to find contents again in what it writes. */
const SYSTEM_PROBE = "Prbsystem7301";
const USER_PROBE = "Prbuser7302";
const ASSISTANT_PROBE = "Prbassistant7303";

/**
 * @param variables `bos_token`, `eos_token` and the like. Templates come with models: they are interpreted (they cannot
 * reach JavaScript), within a time and size limit. Throws `chat_template_failed`.
 */
export function compileTemplate(source: string, variables: Readonly<Record<string, unknown>>): ChatTemplate {
  if (source.length > MAX_TEMPLATE_CHARS) {
    throw fail("chat_template_failed", `the chat template is longer than ${MAX_TEMPLATE_CHARS} characters`);
  }
  const program = run(() => parseTemplate(source));
  const render: ChatTemplate["render"] = (messages, { addGenerationPrompt }) => {
    const text = run(() =>
      program({
        // Some templates simply write these; Python's would fail where the model has none.
        bos_token: "",
        eos_token: "",
        ...variables,
        messages: messages.map(({ role, content }) => ({ role, content })),
        // null, as Transformers passes them: `tools is not none` must be false.
        tools: null,
        documents: null,
        add_generation_prompt: addGenerationPrompt,
      }),
    );
    if (text.length > MAX_RENDERED_CHARS) {
      throw fail("chat_template_failed", `the chat template wrote more than ${MAX_RENDERED_CHARS} characters`);
    }
    return text;
  };
  return { source, render, ...probe(render) };
}

const TOO_SLOW = `the chat template ran for more than ${RENDER_LIMIT_MS / 1000} s; use another one`;

/** Runs template code; its errors and its loops become ours. */
function run<T>(work: () => T): T {
  let result: { value: T } | undefined;
  try {
    result = withTimeLimit(RENDER_LIMIT_MS, work);
  } catch (error) {
    const reason = error instanceof Error ? error.message.slice(0, 500) : "unknown reason";
    throw fail("chat_template_failed", `the chat template of the model failed: ${reason}`, { cause: error });
  }
  if (result) return result.value;
  throw fail(
    "chat_template_failed",
    `the chat template ran for more than ${RENDER_LIMIT_MS / 1000} s; use another one`,
  );
}

function probe(render: ChatTemplate["render"]): Pick<ChatTemplate, "acceptsSystem" | "frame" | "endOfTurn"> {
  const attempt = (messages: readonly ChatMessage[]): string | null => {
    try {
      return render(messages, { addGenerationPrompt: false });
    } catch (error) {
      // What does not end for one short message never will.
      if (error instanceof PreceptorError && error.message === TOO_SLOW) throw error;
      return null;
    }
  };
  const user = { role: "user", content: USER_PROBE };
  const alone = attempt([user]);
  // A template that cannot do this (or takes too long) cannot do the rest either: the first real use says why.
  if (alone === null) return { acceptsSystem: true, frame: "", endOfTurn: null };
  const withSystem = attempt([{ role: "system", content: SYSTEM_PROBE }, user]);
  const acceptsSystem = withSystem?.includes(SYSTEM_PROBE) ?? false;
  const full = attempt([user, { role: "assistant", content: ASSISTANT_PROBE }]);
  const at = full?.lastIndexOf(ASSISTANT_PROBE) ?? -1;
  const endOfTurn = full !== null && at >= 0 ? full.slice(at + ASSISTANT_PROBE.length) : null;
  return { acceptsSystem, endOfTurn, frame: alone + (acceptsSystem ? withSystem : "") + (endOfTurn ?? "") };
}
