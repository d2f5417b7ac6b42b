import type { PackedTensor, PlannedMatrix } from "../../../graph/matrices.ts";
import { DATA_FILE } from "./index-file.ts";
import { plainBytes } from "./plain.ts";
import type { RegionFile } from "./region-file.ts";

/**
 * A session first packs a weight, and then looks for the result in the file by its hash. So what it packs serves as a name
 * only: it need not be the weight, just another tensor for every matrix. These are zeros with a mark at another place in
 * each, and overlap in one region that is all hole but for the mark: the weights lie on the disk once, as packed, and
 * loading reads nothing.
 */
export interface StandIns {
  /** In the place of a tensor. */
  of(name: string, tensor: PackedTensor): PackedTensor;
}

/** A session that did not find the packed form would compute with this, and must not do so unnoticed: NaN spreads. */
const MARK = new Uint8Array(Float32Array.of(Number.NaN).buffer);

/** Where each begins in the region; the mark lies behind the last beginning, so at another place from each of them. */
const STEP_BYTES = MARK.byteLength;

export async function createStandIns(matrices: readonly PlannedMatrix[], file: RegionFile): Promise<StandIns> {
  const mark = matrices.length * STEP_BYTES;
  const largest = Math.max(...matrices.map(plainBytes));
  const start = file.reserve(mark + largest);
  await file.write(start + mark, MARK);
  const places = new Map(matrices.map(({ name }, i) => [name, start + i * STEP_BYTES]));
  return {
    of: (name, { data, ...rest }) => ({
      ...rest,
      data: { location: DATA_FILE, offset: places.get(name)!, bytes: data.bytes },
    }),
  };
}
