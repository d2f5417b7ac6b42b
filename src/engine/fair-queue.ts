import type { Priority } from "./engine.ts";

/** Who waits. */
export interface Waiting {
  readonly client: string;
  readonly priority: Priority;
}

/** Clients take turns, each with its oldest request; interactive requests go before jobs. */
export interface FairQueue<T extends Waiting> {
  push(item: T): void;
  /** In the order in which they are to be served if nothing else comes. */
  inOrder(): T[];
  /** Takes one out; `served`: it was its client's turn, the next one belongs to others. */
  remove(item: T, served: boolean): void;
  countOf(client: string): number;
  readonly size: number;
}

const CLASSES: readonly Priority[] = ["interactive", "job"];

export function createFairQueue<T extends Waiting>(): FairQueue<T> {
  /** Per class: client → its requests. Clients in the order of their turns. */
  const lines = { interactive: new Map<string, T[]>(), job: new Map<string, T[]>() };
  let size = 0;

  function rounds(line: ReadonlyMap<string, readonly T[]>): T[] {
    const out: T[] = [];
    const longest = Math.max(0, ...[...line.values()].map((items) => items.length));
    for (let round = 0; round < longest; round++) {
      for (const items of line.values()) if (items[round]) out.push(items[round]!);
    }
    return out;
  }

  return {
    push(item) {
      const line = lines[item.priority];
      const own = line.get(item.client);
      if (own) own.push(item);
      else line.set(item.client, [item]);
      size++;
    },
    inOrder: () => CLASSES.flatMap((priority) => rounds(lines[priority])),
    remove(item, served) {
      const line = lines[item.priority];
      const own = line.get(item.client);
      const at = own?.indexOf(item) ?? -1;
      if (!own || at < 0) return;
      own.splice(at, 1);
      size--;
      if (own.length > 0 && !served) return;
      line.delete(item.client);
      if (own.length > 0) line.set(item.client, own);
    },
    countOf: (client) => CLASSES.reduce((sum, priority) => sum + (lines[priority].get(client)?.length ?? 0), 0),
    get size() {
      return size;
    },
  };
}
