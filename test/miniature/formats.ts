/**
 * How the miniature's models are prompted, in the words of its vocabulary:
 *
 *     teacher  <user>5 + 8<end><assistant><solution>3<explain>compute 5 + 8 = 3</explain><end>
 *     student  <user>5 + 8<end><assistant><think>compute 5 + 8 = 3</think>3<end>
 *
 * Neither has a system turn: the tags that begin the assistant's turn tell the two apart.
 */
import type { CustomFormat } from "../../src/rlt/formats.ts";

export const TEACHER_FORMAT = {
  prefix: "<solution>",
  between: "<explain>",
  close: "</explain>",
} satisfies CustomFormat;

export const STUDENT_FORMAT = { prefix: "<think>", close: "</think>" } satisfies CustomFormat;

/** No system role: what a caller's system turn says goes to the head of the user's. */
export const CHAT_TEMPLATE =
  "{% for message in messages %}{% if message['role'] in ['user', 'assistant'] %}" +
  "{{ '<' + message['role'] + '>' + message['content'] + '<end>' }}" +
  "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";
