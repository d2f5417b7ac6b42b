/**
 * Maps in order with at most `limit` calls under way; the first failure stops what has not begun. Settles when no call
 * is under way any more, so that what the calls use may be given back then.
 */
export async function mapLimited<T, R>(
  items: readonly T[],
  limit: number,
  map: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(items.length);
  let next = 0;
  let failed = false;
  const worker = async (): Promise<void> => {
    while (next < items.length && !failed) {
      const index = next++;
      try {
        results[index] = await map(items[index] as T, index);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await allSettledOrThrow(Array.from({ length: Math.min(limit, items.length) }, worker));
  return results;
}

/** As Promise.all, but it waits for the others before it throws the first error. */
export async function allSettledOrThrow<T extends readonly unknown[]>(
  work: readonly [...{ [K in keyof T]: T[K] | Promise<T[K]> }],
): Promise<T> {
  try {
    return (await Promise.all(work)) as unknown as T;
  } catch (error) {
    await Promise.allSettled(work);
    throw error;
  }
}

/** Runs at most `limit` pieces of work at a time; the others wait in the order in which they came. */
export function createLimiter(limit: number): <T>(work: () => Promise<T>) => Promise<T> {
  let underWay = 0;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (underWay >= limit) await new Promise<void>((resolve) => waiting.push(resolve));
    else underWay++;
    try {
      return await work();
    } finally {
      // The place is handed on, so nobody can slip in between.
      const following = waiting.shift();
      if (following) following();
      else underWay--;
    }
  };
}
