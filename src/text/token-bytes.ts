import { fromByteChars } from "./byte-level.ts";
import { METASPACE, prependScheme } from "./pre-tokenizer.ts";
import { type Component, type TokenizerSpec, unsupported } from "./tokenizer-file.ts";

/** What every id stands for, in three flat arrays that cross threads cheaply. */
export interface TokenBytes {
  /** Bytes of all tokens, one after the other. */
  data: Uint8Array;
  /** (V + 1) token i has data[offsets[i]] … data[offsets[i + 1] − 1] */
  offsets: Int32Array;
  /** (V) 1 for special tokens */
  special: Uint8Array;
}

export interface DecoderKind {
  byteLevel: boolean;
  byteFallback: boolean;
  /** Encoding puts a space in front of a text; decoding drops it again. */
  stripsSpace: boolean;
}

/** Reads the decoder's components; without any, what the pre-tokenizer does is undone. Throws `invalid_tokenizer`. */
export function decoderKind(spec: TokenizerSpec): DecoderKind {
  const components = spec.decoders.length > 0 ? spec.decoders : spec.preTokenizers.filter(isReversible);
  const kind = { byteLevel: false, byteFallback: spec.model.byteFallback, stripsSpace: false };
  for (const config of components) {
    if (config.type === "ByteLevel") kind.byteLevel = true;
    else if (config.type === "ByteFallback") kind.byteFallback = true;
    else if (config.type === "Metaspace") kind.stripsSpace ||= prependScheme(config) !== "never";
    else if (config.type === "Strip") kind.stripsSpace ||= config.content === " " && Number(config.start ?? 0) > 0;
    else if (config.type === "Replace") requireMetaspace(config);
    else if (config.type !== "Fuse") throw unsupported(`the decoder ${config.type}`);
  }
  return kind;
}

const isReversible = ({ type }: Component): boolean => type === "ByteLevel" || type === "Metaspace";

function requireMetaspace(config: Component): void {
  const pattern = config.pattern as { String?: unknown } | null | undefined;
  if (pattern?.String !== METASPACE || config.content !== " ")
    throw unsupported("a Replace decoder other than ▁ → space");
}

export function buildTokenBytes(spec: TokenizerSpec): TokenBytes {
  const kind = decoderKind(spec);
  const tokens: { bytes: Uint8Array; special: boolean }[] = [];
  for (const [token, id] of spec.model.vocab) {
    tokens[id] = { bytes: bytesOfToken(token, kind), special: false };
  }
  for (const token of spec.addedTokens) {
    const text = token.special || kind.byteLevel ? token.content : token.content.replaceAll(METASPACE, " ");
    tokens[token.id] = { bytes: Buffer.from(text), special: token.special };
  }
  const size = tokens.length;
  let total = 0;
  const offsets = new Int32Array(size + 1);
  for (let id = 0; id < size; id++) offsets[id + 1] = total += tokens[id]?.bytes.length ?? 0;
  const data = new Uint8Array(total);
  const flags = new Uint8Array(size);
  tokens.forEach((token, id) => {
    data.set(token.bytes, offsets[id]);
    flags[id] = token.special ? 1 : 0;
  });
  return { data, offsets, special: flags };
}

function bytesOfToken(token: string, kind: DecoderKind): Uint8Array {
  if (kind.byteLevel) return fromByteChars(token);
  const byte = kind.byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1] : undefined;
  return byte === undefined ? Buffer.from(token.replaceAll(METASPACE, " ")) : Uint8Array.of(Number.parseInt(byte, 16));
}

const NOTHING = new Uint8Array(0);

/** Bytes of an id: a view, O(1). Nothing for ids outside the vocabulary, and for special ones unless `special`. */
export function bytesOfId(table: TokenBytes, id: number, special = false): Uint8Array {
  const start = table.offsets[id];
  const end = table.offsets[id + 1];
  if (start === undefined || end === undefined) return NOTHING;
  if (!special && table.special[id] === 1) return NOTHING;
  return table.data.subarray(start, end);
}

/** Text of a sequence of ids. Bytes that are no UTF-8 become U+FFFD. */
export function decodeIds(
  table: TokenBytes,
  ids: Iterable<number>,
  options: { special?: boolean | undefined; stripsSpace: boolean },
): string {
  const parts: Uint8Array[] = [];
  for (const id of ids) parts.push(bytesOfId(table, id, options.special));
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(parts));
  return options.stripsSpace && text.startsWith(" ") ? text.slice(1) : text;
}
