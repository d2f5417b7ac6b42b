/** Models that other servers have loaded: reached, probed, and their tokenizers compared with the ones named for them. */
import type { RemoteEngine, RemoteModel } from "../../engine/engine.ts";
import { fail, PreceptorError } from "../../errors.ts";
import { parseModelSource } from "../../model/source.ts";
import { readTokenizerFacts } from "../../model/tokenizer-facts.ts";
import type { TextModel, TextService } from "../../text/text.ts";

/** What one registration says about a remote model. */
export interface RemoteSource {
  source: string;
  credential: string | null;
  tokenizer: string | null;
  tempered: number | null;
  contextLength: number | null;
}

export interface ConnectedRemote {
  model: RemoteModel;
  text: TextModel;
  /** Ids that end a turn: the tokenizer's and those of the config files beside it. */
  eosIds: readonly number[];
}

export interface RemotesDeps {
  engine: RemoteEngine;
  text: TextService;
  /** By the name that a registration gives. */
  credential: (name: string) => string | undefined;
  /** A `tokenizer` field (a path or `hf:…`) → a directory with tokenizer files; no weights are downloaded for it. */
  tokenizerDirectory: (source: string) => Promise<string>;
  /** Directories under which its files may lie. */
  allowedRoots: readonly string[];
  /** The server cannot be asked what it makes of a text, so nobody has compared the tokenizers. */
  unverified?: (source: string) => void;
}

/** Ordinary prose: probes are made of its first ids, and every tokenizer has some. */
const PROBE_TEXT =
  "A teacher who knows the answer explains each step of the way, so that a student who reads it finds the answer alone.";
/** Enough to tell two models apart, and an answer with whole distributions of a small vocabulary stays small. */
const PROBE_TOKENS = 16;

/** Where tokenizers differ: digits, blanks, capitals, other scripts, the tags of our own formats. */
const TOKENIZER_PROBES = [
  PROBE_TEXT,
  "12345 + 67.89 = 12412.89; x_1^2 ≤ \\frac{3}{4}\n\n\t\tif (a != b) return;\r\n   ",
  "Größe, naïve — 你好，世界。 Привет! שלום 🙂👩‍🔬",
  "<|begin_of_explanation|>\n\n(A) so 5.\n\n<|end_of_explanation|></explanation>",
];

/**
 * Throws `model_source_not_allowed`, `invalid_value` (a credential or tokenizer that is missing), `tokenizer_mismatch`,
 * and what reading the tokenizer or probing the server throws.
 */
export async function connectRemote(
  deps: RemotesDeps,
  from: RemoteSource,
  signal?: AbortSignal,
): Promise<ConnectedRemote> {
  const parsed = parseModelSource(from.source);
  if (parsed.kind !== "openai") throw fail("internal_error", `${parsed.kind} is no remote model`);
  deps.engine.check(parsed.baseUrls);
  const key = findKey(deps, from.credential);
  const directory = await tokenizerDirectory(deps, from.tokenizer);
  const [text, facts] = await Promise.all([
    ofTokenizer(deps.text.open(directory)),
    ofTokenizer(readTokenizerFacts(directory, deps.allowedRoots)),
  ]);
  checkTempered(from.tempered, facts.tempered);
  const eosIds = [...new Set([...facts.eosIds, ...text.eosIds])];
  signal?.throwIfAborted();
  const probe = await text.encode(PROBE_TEXT, { parseSpecial: false, addSpecial: true });
  const model = await deps.engine.connect(
    {
      baseUrls: parsed.baseUrls,
      name: parsed.name,
      key,
      tempered: from.tempered ?? 1,
      vocabSize: Math.max(facts.vocabSize ?? 0, text.size),
      eosIds,
      contextLength: from.contextLength,
      probeIds: probe.ids.slice(0, PROBE_TOKENS),
    },
    signal,
  );
  try {
    await verify(deps, from, { text, model }, signal);
  } catch (error) {
    await model.close();
    throw error;
  }
  return { model, text, eosIds };
}

/** What was found out when it was connected, found out anew; the connection stays as it is where that fails. Throws as `connectRemote`. */
export async function reprobe(
  deps: RemotesDeps,
  from: RemoteSource,
  connected: ConnectedRemote,
  signal: AbortSignal,
): Promise<void> {
  await connected.model.probe();
  await verify(deps, from, connected, signal);
}

async function verify(
  deps: RemotesDeps,
  { source }: RemoteSource,
  { text, model }: Pick<ConnectedRemote, "text" | "model">,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!(await compareTokenizers(text, model, signal))) deps.unverified?.(source);
}

function findKey({ credential }: RemotesDeps, name: string | null): string | undefined {
  if (name === null) return undefined;
  const key = credential(name);
  if (key !== undefined) return key;
  const variable = `PRECEPTOR_CREDENTIAL_${name.toUpperCase()}`;
  throw fail(
    "invalid_value",
    `there is no secret of this name here; set ${variable} (or ${variable}_FILE) and restart the server`,
    {
      param: "credential",
    },
  );
}

async function tokenizerDirectory(deps: RemotesDeps, source: string | null): Promise<string> {
  if (source === null) {
    throw fail(
      "invalid_value",
      "a remote model needs its tokenizer here: a directory under a models directory, or hf:org/name (no weights are downloaded)",
      {
        param: "tokenizer",
      },
    );
  }
  return ofTokenizer(deps.tokenizerDirectory(source));
}

/** The readers of files speak of models; here the same problem is the tokenizer's. */
async function ofTokenizer<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof PreceptorError)) throw error;
    throw fail(error.code, error.message, { param: "tokenizer", cause: error });
  }
}

function checkTempered(registered: number | null, remembered: number | null): void {
  if (remembered === null || registered === remembered) return;
  throw fail(
    "invalid_value",
    `the tokenizer's directory is a checkpoint tempered at ${remembered}; if that is what the server serves, register it with ` +
      `tempered: ${remembered}, otherwise name the untempered directory`,
    { param: "tempered" },
  );
}

/** False: the server cannot be asked. Throws `tokenizer_mismatch` with the first difference. */
async function compareTokenizers(
  text: TextModel,
  model: RemoteModel,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  for (const probe of TOKENIZER_PROBES) {
    const theirs = await model.serverTokens(probe, signal);
    if (!theirs) return false;
    const mine = (await text.encode(probe, { parseSpecial: false, addSpecial: false })).ids;
    const at = Array.from({ length: Math.max(mine.length, theirs.length) }, (_, i) => i).find(
      (i) => mine[i] !== theirs[i],
    );
    if (at === undefined) continue;
    throw fail(
      "tokenizer_mismatch",
      `the server tokenises ${JSON.stringify(probe.slice(0, 40))}… differently: token ${at} is ${theirs[at] ?? "missing"} there ` +
        `and ${mine[at] ?? "missing"} with this tokenizer. Name the tokenizer of the model that it serves`,
      { param: "tokenizer" },
    );
  }
  return true;
}
