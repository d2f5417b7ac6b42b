import { readFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PreceptorError } from "../../../src/errors.ts";
import { parseConfig } from "../../../src/model/config.ts";
import { GOLDEN, GOLDEN_NAMES, LLAMA_CONFIG } from "./fixture.ts";

const QWEN = { ...LLAMA_CONFIG, model_type: "qwen2", architectures: ["Qwen2ForCausalLM"] };
const MISTRAL = { ...LLAMA_CONFIG, model_type: "mistral", architectures: ["MistralForCausalLM"], sliding_window: null };
const GEMMA = {
  ...LLAMA_CONFIG,
  model_type: "gemma3_text",
  architectures: ["Gemma3ForCausalLM"],
  head_dim: 8,
  num_hidden_layers: 3,
  hidden_activation: "gelu_pytorch_tanh",
  query_pre_attn_scalar: 16,
  sliding_window: 16,
  rope_theta: 1e6,
  rope_local_base_freq: 1e4,
  tie_word_embeddings: undefined,
};

async function golden(name: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path.join(GOLDEN, name, "config.json"), "utf8")) as Record<string, unknown>;
}

describe("both layouts of RoPE give the same ModelConfig", () => {
  test.each(GOLDEN_NAMES.filter((name) => name !== "gemma3"))("%s", async (name) => {
    const { rope_theta, rope_scaling, rope_parameters, ...rest } = await golden(name);
    const both = { rope_theta, ...(rope_scaling as object), ...(rope_parameters as object) };
    const { rope_theta: theta, ...scaling } = both;
    expect(typeof theta).toBe("number");
    const older = parseConfig({ ...rest, rope_theta: theta, rope_scaling: "rope_type" in scaling ? scaling : null });
    const newer = parseConfig({ ...rest, rope_parameters: both });
    expect(older).toEqual(newer);
    expect(older).toEqual(parseConfig(await golden(name)));
  });

  test("gemma3", async () => {
    const { rope_parameters: _, layer_types: __, ...rest } = await golden("gemma3");
    const older = parseConfig({ ...rest, rope_theta: 1e6, rope_local_base_freq: 1e4, sliding_window_pattern: 3 });
    expect(older).toEqual(parseConfig(await golden("gemma3")));
  });

  test("the oldest name of the scaling type is `type`", () => {
    const scaling = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 };
    expect(parseConfig({ ...LLAMA_CONFIG, rope_scaling: { ...scaling, type: "llama3" } })).toEqual(
      parseConfig({ ...LLAMA_CONFIG, rope_scaling: { ...scaling, rope_type: "llama3" } }),
    );
  });
});

describe("inverse frequencies are those of Transformers (5.x, torch float32)", () => {
  const frequencies = (config: Record<string, unknown>) =>
    Array.from(parseConfig({ ...LLAMA_CONFIG, ...config }).config.ropes[0]!.inverseFrequencies);
  // One unit in the last place: torch's vectorised pow is not correctly rounded.
  const expectClose = (actual: number[], expected: number[]) => {
    expect(actual).toHaveLength(expected.length);
    actual.forEach((x, i) => {
      expect(Math.abs(x / expected[i]! - 1)).toBeLessThan(1.3e-7);
    });
  };

  test("llama3, head_dim 64, as Llama 3.2", () => {
    const rope_scaling = {
      rope_type: "llama3",
      factor: 32,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    };
    expectClose(
      frequencies({ hidden_size: 128, rope_theta: 500000, rope_scaling }),
      [
        1.0, 0.663601279258728, 0.44036662578582764, 0.2922278344631195, 0.193922758102417, 0.12868738174438477,
        0.08539710193872452, 0.05666961893439293, 0.03760603070259094, 0.02495540864765644, 0.016560440883040428,
        0.010989529080688953, 0.00729266507551074, 0.00483942124992609, 0.0032114461064338684, 0.0012905480107292533,
        0.000429556705057621, 9.708286233944818e-5, 1.9461638657958247e-5, 1.291476746700937e-5, 8.570255886297673e-6,
        5.687232260243036e-6, 3.7740544485131977e-6, 2.504467147446121e-6, 1.6619674170215148e-6, 1.1028836297555245e-6,
        7.318749339901842e-7, 4.856731266045244e-7, 3.2229328894572973e-7, 2.1387423032592778e-7, 1.4192720243499934e-7,
        9.418306490260875e-8,
      ],
    );
  });

  test("linear, head_dim 24", () => {
    expectClose(
      frequencies({ hidden_size: 48, rope_parameters: { rope_type: "linear", rope_theta: 10000, factor: 8 } }),
      [
        0.125, 0.058019861578941345, 0.0269304309040308, 0.012500000186264515, 0.005801985505968332,
        0.0026930435560643673, 0.0012499999720603228, 0.0005801987135782838, 0.0002693042915780097,
        0.0001250000059371814, 5.801986844744533e-5, 2.693042733881157e-5,
      ],
    );
  });

  test("default, head_dim 128, theta 1e6", () => {
    const actual = frequencies({ hidden_size: 256, rope_theta: 1e6 });
    expectClose(
      [actual[0]!, actual[1]!, actual[31]!, actual[63]!],
      [1, 0.8058422207832336, 0.0012409378541633487, 1.2409377632138785e-6],
    );
    expect(actual).toHaveLength(64);
  });
});

describe("sliding windows", () => {
  const windows = (config: Record<string, unknown>) =>
    parseConfig(config).config.layerKinds.map(({ window }) => window);

  test("mistral: the width for all layers, null for none, 4096 where the key is absent", () => {
    expect(windows({ ...MISTRAL, sliding_window: 16 })).toEqual([16, 16]);
    expect(windows(MISTRAL)).toEqual([null, null]);
    const { sliding_window: _, ...absent } = { ...MISTRAL, max_position_embeddings: 32768 };
    expect(windows(absent)).toEqual([4096, 4096]);
  });

  test("a window that covers the whole context is none", () => {
    expect(windows({ ...MISTRAL, sliding_window: 64 })).toEqual([null, null]);
    expect(windows({ ...MISTRAL, sliding_window: 63 })).toEqual([63, 63]);
  });

  test("qwen: only with use_sliding_window, from max_window_layers on, or as layer_types says", () => {
    expect(windows({ ...QWEN, sliding_window: 16, max_window_layers: 0 })).toEqual([null, null]);
    const on = { ...QWEN, use_sliding_window: true, sliding_window: 16 };
    expect(windows({ ...on, max_window_layers: 1 })).toEqual([null, 16]);
    expect(windows({ ...on, max_window_layers: 0 })).toEqual([16, 16]);
    expect(windows({ ...on, layer_types: ["sliding_attention", "full_attention"] })).toEqual([16, null]);
    expect(() =>
      windows({ ...on, use_sliding_window: false, layer_types: ["sliding_attention", "full_attention"] }),
    ).toThrow(/layer_types/);
    expect(() =>
      windows({ ...on, sliding_window: null, layer_types: ["sliding_attention", "full_attention"] }),
    ).toThrow(/sliding_window is null/);
  });

  test("gemma3: two RoPE tables; scaling only for full attention", () => {
    const { config } = parseConfig({
      ...GEMMA,
      sliding_window_pattern: 2,
      rope_scaling: { rope_type: "linear", factor: 8 },
    });
    expect(config.layerKinds).toEqual([
      { rope: 1, window: 16 },
      { rope: 0, window: null },
      { rope: 1, window: 16 },
    ]);
    expect(config.ropes.map(({ inverseFrequencies }) => inverseFrequencies[0])).toEqual([0.125, 1]);
    expect(config.attentionScale).toBe(0.25);
    expect(config.embeddingScale).toBe(Math.fround(Math.sqrt(8)));
    expect(config.tiedHead).toBe(true);
  });
});

test("a multimodal gemma3 config means its text part, with the defaults of its class", () => {
  const { config, eosIds } = parseConfig({
    model_type: "gemma3",
    architectures: ["Gemma3ForConditionalGeneration"],
    eos_token_id: [1, 106],
    vision_config: { hidden_size: 1152, num_experts: 3 },
    text_config: {
      model_type: "gemma3_text",
      hidden_size: 2560,
      intermediate_size: 10240,
      num_hidden_layers: 34,
      rope_scaling: { factor: 8, rope_type: "linear" },
      sliding_window: 1024,
    },
  });
  expect(config).toMatchObject({ heads: 8, kvHeads: 4, headDim: 256, vocabSize: 262208, maxPositions: 131072 });
  expect(config.layerKinds.filter(({ window }) => window === null)).toHaveLength(5);
  expect(eosIds).toEqual([1, 106]);
});

test("families differ in biases, norms and defaults", () => {
  const flags = (config: Record<string, unknown>) => {
    const { qkvBias, oBias, mlpBias, qkNorm } = parseConfig(config).config;
    return { qkvBias, oBias, mlpBias, qkNorm };
  };
  const none = { qkvBias: false, oBias: false, mlpBias: false, qkNorm: false };
  expect(flags(LLAMA_CONFIG)).toEqual(none);
  expect(flags({ ...LLAMA_CONFIG, attention_bias: true, mlp_bias: true })).toEqual({
    qkvBias: true,
    oBias: true,
    mlpBias: true,
    qkNorm: false,
  });
  expect(flags(QWEN)).toEqual({ ...none, qkvBias: true });
  expect(flags({ ...QWEN, attention_bias: false })).toEqual({ ...none, qkvBias: true });
  expect(flags(MISTRAL)).toEqual(none);
  expect(flags({ ...QWEN, model_type: "qwen3" })).toEqual({ ...none, qkNorm: true });
  expect(parseConfig({ ...QWEN, model_type: "qwen3" }).config.headDim).toBe(128);
  expect(parseConfig({ ...LLAMA_CONFIG, num_key_value_heads: null }).config.kvHeads).toBe(2);
});

test("end-of-turn ids: generation_config first, one or a list, those outside the vocabulary dropped", () => {
  expect(parseConfig(LLAMA_CONFIG).eosIds).toEqual([2]);
  expect(parseConfig(LLAMA_CONFIG, { eos_token_id: [7, 3, 7, 99, -1] }).eosIds).toEqual([7, 3]);
  expect(parseConfig(LLAMA_CONFIG, { eos_token_id: null }).eosIds).toEqual([2]);
  expect(parseConfig({ ...LLAMA_CONFIG, eos_token_id: null }).eosIds).toEqual([]);
  expect(() => parseConfig(LLAMA_CONFIG, { eos_token_id: "</s>" })).toThrow(/eos_token_id/);
});

describe("refused by name and reason", () => {
  const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 };
  const cases: [name: string, config: Record<string, unknown>, code: string, message: RegExp][] = [
    ["unknown family", { model_type: "mamba" }, "unsupported_architecture", /"mamba".*llama, mistral/],
    ["a family named like a method", { model_type: "constructor" }, "unsupported_architecture", /constructor/],
    ["no family", { model_type: undefined }, "invalid_checkpoint", /model_type/],
    ["gemma2", { model_type: "gemma2" }, "unsupported_architecture", /gemma2/],
    ["activation", { hidden_act: "relu" }, "unsupported_architecture", /hidden_act "relu"/],
    ["AWQ", { quantization_config: { quant_method: "awq" } }, "unsupported_checkpoint", /awq.*quantised/],
    ["experts", { num_local_experts: 8 }, "unsupported_architecture", /num_local_experts.*mixtures/],
    ["yarn", { rope_scaling: yarn }, "unsupported_architecture", /"yarn"/],
    ["dynamic", { rope_scaling: { type: "dynamic", factor: 2 } }, "unsupported_architecture", /"dynamic"/],
    ["longrope", { rope_parameters: { rope_type: "longrope" } }, "unsupported_architecture", /"longrope"/],
    ["partial rotary", { partial_rotary_factor: 0.5 }, "unsupported_architecture", /partial/],
    [
      "partial rotary inside",
      { rope_parameters: { partial_rotary_factor: 0.5 } },
      "unsupported_architecture",
      /partial/,
    ],
    ["soft caps", { final_logit_softcapping: 30 }, "unsupported_architecture", /final_logit_softcapping/],
    ["granite's scaling", { residual_multiplier: 0.22 }, "unsupported_architecture", /residual_multiplier/],
    ["a window for llama", { sliding_window: 16 }, "unsupported_architecture", /sliding_window/],
    ["an encoder", { is_causal: false }, "unsupported_architecture", /is_causal/],
    [
      "a classifier",
      { architectures: ["LlamaForSequenceClassification"] },
      "unsupported_architecture",
      /architectures/,
    ],
    ["foreign code", { auto_map: { AutoModelForCausalLM: "x.Y" } }, "unsupported_architecture", /auto_map/],
    ["heads", { num_key_value_heads: 3 }, "invalid_checkpoint", /num_key_value_heads is 3; it must divide/],
    ["head size", { head_dim: 3 }, "invalid_checkpoint", /head_dim is 3.*even/],
    ["uneven heads", { num_attention_heads: 3, num_key_value_heads: 3 }, "invalid_checkpoint", /head_dim/],
    ["zero layers", { num_hidden_layers: 0 }, "invalid_checkpoint", /num_hidden_layers is 0/],
    ["a billion layers", { num_hidden_layers: 1e9 }, "invalid_checkpoint", /num_hidden_layers/],
    ["fractional size", { hidden_size: 8.5 }, "invalid_checkpoint", /hidden_size is 8.5/],
    ["negative size", { vocab_size: -1 }, "invalid_checkpoint", /vocab_size is -1/],
    ["size as string", { vocab_size: "10" }, "invalid_checkpoint", /vocab_size is "10"/],
    ["missing size", { intermediate_size: undefined }, "invalid_checkpoint", /intermediate_size is missing/],
    ["tie as string", { tie_word_embeddings: "yes" }, "invalid_checkpoint", /tie_word_embeddings/],
    ["theta", { rope_theta: 0 }, "invalid_checkpoint", /rope_theta is 0/],
    [
      "infinite frequencies",
      { rope_scaling: { type: "linear", factor: 1e-300 } },
      "invalid_checkpoint",
      /beyond float32/,
    ],
    [
      "scaling without factor",
      { rope_scaling: { rope_type: "llama3" } },
      "invalid_checkpoint",
      /rope_scaling: factor is missing/,
    ],
    ["rope_scaling as list", { rope_scaling: [] }, "invalid_checkpoint", /rope_scaling.*object/],
  ];
  test.each(cases)("%s", (_name, change, code, message) => {
    expect(() => parseConfig({ ...LLAMA_CONFIG, ...change })).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  test("values that mean nothing special pass", () => {
    const harmless = {
      quantization_config: null,
      attn_logit_softcapping: null,
      partial_rotary_factor: 1,
      num_experts: 0,
      rope_scaling: null,
      use_bidirectional_attention: false,
      auto_map: { AutoTokenizer: "x" },
    };
    expect(parseConfig({ ...LLAMA_CONFIG, ...harmless })).toEqual(parseConfig(LLAMA_CONFIG));
  });

  test("biases that a family does not have", () => {
    expect(() => parseConfig({ ...MISTRAL, attention_bias: true })).toThrow(/attention_bias/);
    expect(() => parseConfig({ ...QWEN, mlp_bias: true })).toThrow(/mlp_bias/);
  });
});

test("whatever stands in a field, the answer is a config or a PreceptorError", () => {
  const keys = [
    ...new Set([
      ...Object.keys(GEMMA),
      ...Object.keys(QWEN),
      "rope_scaling",
      "rope_parameters",
      "layer_types",
      "text_config",
      "head_dim",
      "architectures",
    ]),
  ];
  const value = fc.oneof(
    fc.jsonValue(),
    fc.integer({ min: -2, max: 40 }),
    fc.record(
      { rope_type: fc.constantFrom("llama3", "linear"), factor: fc.double(), rope_theta: fc.double() },
      { requiredKeys: [] },
    ),
    fc.array(fc.constantFrom("full_attention", "sliding_attention", "x"), { maxLength: 4 }),
  );
  const change = fc.dictionary(fc.constantFrom(...keys), value, { maxKeys: 3 });
  fc.assert(
    fc.property(fc.constantFrom(LLAMA_CONFIG, QWEN, MISTRAL, GEMMA), change, (base, fields) => {
      try {
        const { config } = parseConfig({ ...base, ...fields } as Record<string, unknown>);
        expect(config.layerKinds).toHaveLength(config.layers);
        expect(config.ropes[0]!.inverseFrequencies).toHaveLength(config.headDim / 2);
        expect(config.ropes.every(({ inverseFrequencies }) => inverseFrequencies.every(Number.isFinite))).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(PreceptorError);
      }
    }),
    { numRuns: 500 },
  );
});
