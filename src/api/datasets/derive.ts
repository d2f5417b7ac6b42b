/** A dataset made of another one: filtered, without what must not be trained on, without duplicates, split. */
import type { Dataset } from "../../datasets/dataset.ts";
import type { DatasetOpener } from "../../datasets/open.ts";
import { createSieve, type SieveSettings } from "../../datasets/sieve.ts";
import { sift, splitPart } from "../../datasets/sift.ts";
import type { DatasetSource } from "../../db/dataset-store.ts";
import { type Head, type Keeping, named } from "./keeping.ts";
import { toResource } from "./resource.ts";
import type { DerivationResource, DeriveDataset } from "./schemas.ts";

export async function derive(
  id: string,
  request: DeriveDataset,
  { opener, keeping }: { opener: DatasetOpener; keeping: Keeping },
  signal: AbortSignal,
): Promise<DerivationResource> {
  const { name: wanted, metadata, ...settings } = request;
  const parent = await opener.openDataset(id);
  const name = wanted ?? named((await opener.find(id)).name, "derived");
  const against: Dataset[] = [];
  for (const [i, other] of (settings.decontaminate?.against ?? []).entries()) {
    against.push(await opener.openDataset(other, { param: `decontaminate.against.${i}` }));
  }
  const sieve = await createSieve(sieveSettings(settings, against), signal);
  const source: DatasetSource = { type: "derived", parent: id, settings };
  const head: Head = { name, source, metadata };
  return keeping.staged(async (stage) => {
    const sifted = await sift(parent.rows(), sieve, stage, signal);
    const sides = settings.split
      ? await splitPart(sifted.kept, { heldOut: settings.split.held_out, seed: settings.split.seed }, stage, signal)
      : undefined;
    const { dropped, told } = await keeping.keepDropped(sifted, head, signal);
    const kept = (part: "train" | "held_out" | "kept"): Head => ({
      ...head,
      name: part === "kept" ? name : named(name, part.replace("_", " ")),
      source: { ...source, part, ...told },
    });
    const dataset = await keeping.keep(sides?.train ?? sifted.kept, kept(sides ? "train" : "kept"), signal);
    const heldOut = sides && (await keeping.keep(sides.heldOut, kept("held_out"), signal));
    return {
      object: "dataset.derivation",
      parent: id,
      dataset: toResource(dataset),
      held_out: heldOut ? toResource(heldOut) : null,
      dropped: { rows: dropped?.rows ?? 0, reasons: sifted.reasons, dataset: dropped && toResource(dropped) },
    };
  });
}

function sieveSettings(
  { filter, dedupe, decontaminate }: Pick<DeriveDataset, "filter" | "dedupe" | "decontaminate">,
  against: readonly Dataset[],
): SieveSettings {
  const metadata =
    filter?.metadata && Object.entries(filter.metadata).map(([key, value]) => ({ key, value: String(value) }));
  return {
    filter: filter && { ...filter, metadata },
    dedupe,
    decontaminate: decontaminate && { ...decontaminate, against },
  };
}
