import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { LoadedModel } from "../../../src/text/loaded-model.ts";
import { bytesOfId } from "../../../src/text/token-bytes.ts";
import { byteLevelTokenizer, type Flags, loadFixture, pieces, sentencePieceTokenizer } from "./fixtures.ts";

/** Written for these tests, in the manner of the templates that models bring. */
const TEMPLATES = {
  chatml:
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
  llama3:
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
  qwen3: `{%- for m in messages %}
{%- if m.role == 'assistant' %}
{%- set content = m.content %}{%- set reasoning = '' %}
{%- if '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.last %}{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}{%- endif %}
{{- content + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}`,
  gemma:
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
  mistral:
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
};

const CONTROL: Record<keyof typeof TEMPLATES, Record<string, Flags>> = {
  chatml: { "<|im_start|>": {}, "<|im_end|>": {} },
  llama3: { "<|begin_of_text|>": {}, "<|start_header_id|>": {}, "<|end_header_id|>": {}, "<|eot_id|>": {} },
  qwen3: { "<|im_start|>": {}, "<|im_end|>": {}, "<think>": { special: false }, "</think>": { special: false } },
  gemma: { "<bos>": {}, "<start_of_turn>": { special: false }, "<end_of_turn>": { special: false } },
  mistral: { "<s>": {}, "</s>": {}, "[INST]": {}, "[/INST]": {} },
};
const NAMED: Partial<Record<keyof typeof TEMPLATES, object>> = {
  llama3: { bos_token: "<|begin_of_text|>", eos_token: "<|eot_id|>" },
  gemma: { bos_token: "<bos>", eos_token: "<eos>" },
  mistral: { bos_token: "<s>", eos_token: { content: "</s>" } },
};

const load = (name: keyof typeof TEMPLATES): Promise<LoadedModel> =>
  loadFixture({
    "tokenizer.json": byteLevelTokenizer(CONTROL[name]),
    "tokenizer_config.json": { ...NAMED[name] },
    "chat_template.jinja": TEMPLATES[name],
  });

const user = (content: string) => ({ role: "user", content });
const system = (content: string) => ({ role: "system", content });

/** The added tokens among the ids, spelled out. */
function controlTokens(model: LoadedModel, ids: Int32Array): string[] {
  const added = new Map(model.tokenizer.addedTokens.map(({ id, content }) => [id, content]));
  return Array.from(ids).flatMap((id) => added.get(id) ?? []);
}

describe("templates", () => {
  test("ChatML", async () => {
    const model = await load("chatml");
    const prompt = model.encodePrompt({
      messages: [system("s"), user("q")],
      assistant: [{ text: "a" }],
      endOfTurn: true,
    });
    expect(prompt.text).toBe(
      "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n",
    );
    expect(controlTokens(model, prompt.ids)).toHaveLength(6);
    expect(model.eosIds).toEqual([model.tokenizer.addedTokens[1]?.id]);
  });

  test("Llama 3: contents are trimmed, BOS comes once, from the template", async () => {
    const model = await load("llama3");
    const prompt = model.encodePrompt({ messages: [user("  q\n")], assistant: [{ text: " a " }], endOfTurn: true });
    expect(prompt.text).toBe(
      "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n a <|eot_id|>",
    );
    expect(controlTokens(model, prompt.ids).filter((token) => token === "<|begin_of_text|>")).toHaveLength(1);
  });

  test("Qwen 3: the assistant's text is ours to the byte, its turn ends as the template ends it", async () => {
    const model = await load("qwen3");
    const assistant = [{ text: "<think>\n" }, { text: "t</think>u", field: "thought" }, { text: "\n</think>\n\na" }];
    const prompt = model.encodePrompt({ messages: [user("q")], assistant, endOfTurn: true });
    expect(prompt.text).toBe(
      "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nt</think>u\n</think>\n\na<|im_end|>\n",
    );
    // The format's own tags are the model's tokens; the same tag inside a field is plain text.
    expect(controlTokens(model, prompt.ids)).toEqual([
      "<|im_start|>",
      "<|im_end|>",
      "<|im_start|>",
      "<think>",
      "</think>",
      "<|im_end|>",
    ]);
  });

  test("Qwen 3: earlier thoughts are dropped from the history, tags of a user are text", async () => {
    const model = await load("qwen3");
    const history = [user("</think>q"), { role: "assistant", content: "<think>\nlong\n</think>\n\na" }, user("r")];
    const prompt = model.encodePrompt({ messages: history });
    expect(prompt.text).toContain("user\n</think>q<|im_end|>\n<|im_start|>assistant\na<|im_end|>");
    expect(controlTokens(model, prompt.ids)).not.toContain("</think>");
  });

  test("Gemma: a refused system text goes to the head of the first user turn; turn tokens need no flag", async () => {
    const model = await load("gemma");
    const prompt = model.encodePrompt({
      messages: [system("s"), user("q <end_of_turn>")],
      assistant: [{ text: "a<end_of_turn>" }],
      endOfTurn: true,
    });
    expect(prompt.text).toBe(
      "<bos><start_of_turn>user\ns\n\nq <end_of_turn><end_of_turn>\n<start_of_turn>model\na<end_of_turn><end_of_turn>\n",
    );
    expect(controlTokens(model, prompt.ids)).toEqual([
      "<bos>",
      "<start_of_turn>",
      "<end_of_turn>",
      "<start_of_turn>",
      "<end_of_turn>",
    ]);
  });

  test("Mistral: a dropped system text goes there too; without a user there is one", async () => {
    const model = await load("mistral");
    const prompt = model.encodePrompt({
      messages: [system("s"), user("q")],
      assistant: [{ text: "a" }],
      endOfTurn: true,
    });
    expect(prompt.text).toBe("<s>[INST] s\n\nq [/INST]a</s>");
    expect(model.encodePrompt({ messages: [system("s")] }).text).toBe("<s>[INST] s [/INST]");
  });

  test("the template's own errors reach the caller", async () => {
    const strict = await loadFixture({
      "tokenizer.json": byteLevelTokenizer(),
      "tokenizer_config.json": {
        chat_template:
          "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}",
      },
    });
    expect(strict.encodePrompt({ messages: [user("a")] }).text).toBe("a");
    const failure = { code: "chat_template_failed", message: expect.stringContaining("one turn only") };
    expect(() => strict.encodePrompt({ messages: [user("a"), user("b")] })).toThrow(expect.objectContaining(failure));
  });

  test("where templates lie", async () => {
    const tokenizer = byteLevelTokenizer();
    const prompt = async (files: Record<string, object | string>) =>
      (await loadFixture({ "tokenizer.json": tokenizer, ...files })).encodePrompt({ messages: [user("q")] }).text;
    const list = [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "named" },
    ];
    expect(await prompt({ "tokenizer_config.json": { chat_template: "inline" } })).toBe("inline");
    expect(await prompt({ "tokenizer_config.json": { chat_template: list } })).toBe("named");
    expect(await prompt({ "chat_template.json": { chat_template: "separate" } })).toBe("separate");
    expect(await prompt({ "chat_template.jinja": "file", "tokenizer_config.json": { chat_template: "inline" } })).toBe(
      "file",
    );
  });

  test("no template: a request may bring one", async () => {
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer() });
    expect(model.hasChatTemplate).toBe(false);
    expect(() => model.encodePrompt({ messages: [user("q")] })).toThrow(/no chat template/);
    const chatTemplate = "{% for m in messages %}{{ m.content }}!{% endfor %}";
    expect(model.encodePrompt({ messages: [user("q")], chatTemplate, endOfTurn: true }).text).toBe("q!!");
  });

  test("a broken template fails the prompt, not the model", async () => {
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer(), "chat_template.jinja": "{% for %}" });
    expect(model.encode("the", { parseSpecial: false, addSpecial: false }).ids).toHaveLength(1);
    expect(() => model.encodePrompt({ messages: [user("q")] })).toThrow(/chat template of the model failed/);
  });

  test("a template that does not end is stopped", { timeout: 60_000 }, async () => {
    const chatTemplate = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer() });
    expect(() => model.encodePrompt({ messages: [user("q")], chatTemplate })).toThrow(/ran for more than/);
  });

  test.each([
    [
      "a text doubled over and over",
      "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    ],
    [
      "a list doubled over and over",
      "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x|length }}",
    ],
    [
      "a replacement that grows",
      "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(9) %}{% set n.x = n.x|replace('a', n.x) %}{% endfor %}{{ n.x }}",
    ],
    ["an endless range", "{% for i in range(1000000000) %}{% endfor %}"],
    ["enormous indents", "{{ 'a\nb'|indent(400000000) }}"],
    ["endless recursion", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"],
  ])("a template cannot exhaust the process: %s", async (_, chatTemplate) => {
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer() });
    expect(() => model.encodePrompt({ messages: [user("q")], chatTemplate })).toThrow(/the chat template/);
  });

  test("range and dates work as templates expect", async () => {
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer() });
    const chatTemplate =
      "{% for i in range(2) %}{{ i }}{% endfor %} {% for i in range(6, 1, -2) %}{{ i }}{% endfor %} {{ strftime_now('%Y') }}";
    const { text } = model.encodePrompt({ messages: [user("q")], chatTemplate });
    expect(text).toMatch(/^01 642 20\d\d$/);
  });
});

describe("contents stay contents", () => {
  test("whatever messages and parts say, control tokens are the template's alone", async () => {
    for (const name of ["chatml", "llama3", "gemma"] as const) {
      const model = await load(name);
      const tags = Object.keys(CONTROL[name]);
      const content = fc
        .array(
          fc.oneof(
            fc.constantFrom(
              ...tags,
              ...tags.map((tag) => tag.slice(0, -2)),
              "<",
              "|",
              ">",
              " ",
              "end|>",
              "\u0301",
              "\ue000",
            ),
            fc.string({ maxLength: 4 }),
          ),
          { maxLength: 8 },
        )
        .map((parts) => parts.join(""));
      const expected = controlTokens(
        model,
        model.encodePrompt({ messages: [user("q"), { role: "assistant", content: "a" }, user("q")], endOfTurn: true })
          .ids,
      );
      fc.assert(
        fc.property(content, content, content, content, (first, second, prefix, field) => {
          const prompt = model.encodePrompt({
            messages: [user(first), { role: "assistant", content: second }, user(first + second)],
            assistant: [{ text: prefix }, { text: field, field: "f" }],
            endOfTurn: true,
          });
          expect(controlTokens(model, prompt.ids)).toEqual(expected);
          const bytes = Buffer.from(prompt.text);
          const range = prompt.fields.f as { start: number; end: number };
          expect(bytes.subarray(range.start, range.end).toString()).toBe(field.normalize("NFC"));
          expect(prompt.ends.at(-1)).toBe(bytes.length);
        }),
        { numRuns: 100 },
      );
    }
  });

  test("a tag cut in two by the template's own text cannot close up again", async () => {
    const chatTemplate = "{% for m in messages %}{{ m.content | trim }}{% endfor %}";
    const model = await loadFixture({ "tokenizer.json": byteLevelTokenizer({ "<|x|>": {}, "<<": {} }) });
    const prompt = model.encodePrompt({ messages: [user("a<|x  "), user("|>b<"), user("<")], chatTemplate });
    expect(prompt.text).toBe("a<|x|>b<<");
    expect(controlTokens(model, prompt.ids)).toEqual([]);
  });

  test("a field that begins with a combining mark does not swallow the tag before it", async () => {
    const model = await load("chatml");
    const prompt = model.encodePrompt({
      messages: [user("\u0301q")],
      assistant: [{ text: "e" }, { text: "\u0301x", field: "f" }],
    });
    expect(prompt.fields.f).toEqual({ start: Buffer.byteLength(prompt.text) - 3, end: Buffer.byteLength(prompt.text) });
    expect(prompt.text.endsWith("e\u0301x")).toBe(true);
    const composed = model.encodePrompt({ messages: [user("q")], assistant: [{ text: "e\u0301x", field: "f" }] });
    expect(composed.text.endsWith("éx")).toBe(true);
  });

  test("stretches are encoded whole: ids are those of the text", async () => {
    const model = await load("chatml");
    const parts = ["<", "|begin|", ">\n", "\nth", "e in", "\n"];
    const assistant = parts.map((text, i) => ({ text, field: `f${i}` }));
    const prompt = model.encodePrompt({ messages: [user("q")], assistant });
    const whole = model.encode(prompt.text, { parseSpecial: true, addSpecial: false });
    expect(prompt.ids).toEqual(whole.ids);
    expect(prompt.ends).toEqual(whole.ends);
    expect(pieces(prompt)).toContain("\n\n");
  });

  test("private use characters of the request survive", async () => {
    const model = await load("chatml");
    const content = "\ue000<|im_end|>\ue001\u{f0000}";
    expect(model.encodePrompt({ messages: [user(content)] }).text).toContain(`user\n${content}<|im_end|>`);
  });
});

test("white space after a token that swallows it is the token's", async () => {
  const model = await loadFixture({
    "tokenizer.json": byteLevelTokenizer({ "<|user|>": { rstrip: true }, "<|assistant|>": { rstrip: true } }),
    "chat_template.jinja":
      "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
  });
  const prompt = model.encodePrompt({ messages: [user("the")], assistant: [{ text: "\n\nin", field: "f" }] });
  expect(pieces(prompt)).toEqual(["<|user|>\n", "the", "<|assistant|>\n", "\n\n", "in"]);
});

test("SentencePiece: every stretch gets its space, as the reference does it", async () => {
  const model = await loadFixture({
    "tokenizer.json": sentencePieceTokenizer(),
    "tokenizer_config.json": { bos_token: "<s>", eos_token: "</s>" },
    "chat_template.jinja": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
  });
  const prompt = model.encodePrompt({
    messages: [user("the")],
    assistant: [{ text: "in", field: "f" }],
    endOfTurn: true,
  });
  expect(prompt.text).toBe("<s>the</s>in</s>");
  expect(pieces(prompt)).toEqual(["<s>", "the", "</s>", "in", "</s>"]);
  const spoken = Array.from(prompt.ids, (id) => Buffer.from(bytesOfId(model.tokenizer.bytes, id, true)).toString());
  expect(spoken).toEqual(["<s>", " the", "</s>", " in", "</s>"]);
});
