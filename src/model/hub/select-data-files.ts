import { fail } from "../../errors.ts";

export interface DataReference {
  /** For messages: `org/name`. */
  repo: string;
  /** A folder of the repository that holds one configuration of several. */
  config?: string | undefined;
  /** Default: `train` where there is one, else everything. */
  split?: string | undefined;
}

export interface DataFiles {
  names: string[];
  split: string | null;
  config: string | null;
}

/** Best first: where the same rows are there in several forms one of them is read. */
const FORMS = [/\.parquet$/, /\.(jsonl|ndjson|json)(\.gz)?$/, /\.csv(\.gz)?$/];
/** As the `datasets` library finds splits: by these words, standing by themselves in a file's or folder's name. */
const SPLITS: readonly (readonly [split: string, words: readonly string[]])[] = [
  ["train", ["train", "training"]],
  ["validation", ["validation", "valid", "dev", "val"]],
  ["test", ["test", "testing", "eval", "evaluation"]],
];
/** Names of folders that say nothing about configurations. */
const PLAIN_FOLDERS = new Set(["data", "default"]);
/** Files about the repository, not of its data. */
const NOT_DATA = /(^|\/)(dataset_infos?|config|package|dataset_dict|state)\.json$/;

/** The files of one split of a repository's rows, in their order. Errors: `hub_error` that names what there is. */
export function selectDataFiles(names: readonly string[], { repo, config, split }: DataReference): DataFiles {
  const safe = names.filter((name) => !/[\\\0]/.test(name) && !name.split("/").some((part) => /^(\.|$)/.test(part)));
  const data = safe.filter((name) => FORMS.some((form) => form.test(name)) && !NOT_DATA.test(name)).sort();
  if (data.length === 0)
    throw fail("hub_error", `${repo} has no Parquet, JSON lines or CSV files`, { param: "source" });
  const inConfig = config === undefined ? data : data.filter((name) => configOf(name) === config);
  if (inConfig.length === 0) throw none(`no configuration ${config}`, data.map(configOf), repo);
  const wanted = split ?? (inConfig.some((name) => splitOf(name) === "train") ? "train" : undefined);
  const inSplit = wanted === undefined ? inConfig : inConfig.filter((name) => splitOf(name) === canonical(wanted));
  if (inSplit.length === 0) throw none(`no split ${wanted}`, inConfig.map(splitOf), repo);
  const configs = new Set(inSplit.map(configOf));
  if (configs.size > 1) {
    const choices = [...configs].map((name) => `hf:${repo}:${name || "."}/${wanted ?? "train"}`).slice(0, 8);
    throw fail("hub_error", `${repo} has several configurations; say which: ${choices.join(", ")}`, {
      param: "source",
    });
  }
  const form = FORMS.find((candidate) => inSplit.some((name) => candidate.test(name)))!;
  return {
    names: inSplit.filter((name) => form.test(name)),
    split: wanted === undefined ? null : canonical(wanted),
    config: [...configs][0] || null,
  };
}

function none(what: string, there: readonly (string | undefined)[], repo: string): Error {
  const known = [...new Set(there)].filter((name) => name !== undefined && name !== "").slice(0, 8);
  const choice = known.length > 0 ? `; it has ${known.join(", ")}` : "; leave it out";
  return fail("hub_error", `${repo} has ${what}${choice}`, { param: "source" });
}

/** The first folder, unless it is one of those that every repository has or says which split it is. */
function configOf(name: string): string {
  const [folder = "", ...rest] = name.split("/");
  if (rest.length === 0) return "";
  return PLAIN_FOLDERS.has(folder) || wordOf(folder) !== undefined ? configOf(rest.join("/")) : folder;
}

/** The last part that names one decides: `main/train-00000-of-00001.parquet`. */
function splitOf(name: string): string | undefined {
  return name
    .split("/")
    .reverse()
    .map(wordOf)
    .find((split) => split !== undefined);
}

function wordOf(part: string): string | undefined {
  const words = part.toLowerCase().split(/[^a-z]+/);
  const known = SPLITS.find(([, names]) => names.some((name) => words.includes(name)))?.[0];
  // Splits of other names: shards are called so by every writer.
  return known ?? /^(\w+)-\d{5}-of-\d{5}\./.exec(part)?.[1];
}

const canonical = (split: string): string => SPLITS.find(([, words]) => words.includes(split))?.[0] ?? split;
