/**
 * Interleaves streams in the order in which their values arrive, at most `limit` of them at a time: the next begins when
 * one ends. Each source is at most one value ahead of the reader, so a slow reader holds all of them back. The first error ends the merge; leaving the loop returns every
 * source (abort what they wait for first, or their cleanup waits too).
 */
export async function* mergeStreams<T>(
  sources: readonly AsyncIterable<T>[],
  limit: number = sources.length,
): AsyncGenerator<T> {
  type Arrival = { value: T; next: () => void } | { error: unknown } | "end";
  const arrivals: Arrival[] = [];
  let wake: (() => void) | undefined;
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());

  const arrive = (arrival: Arrival): void => {
    arrivals.push(arrival);
    wake?.();
  };
  const pull = (iterator: AsyncIterator<T>): void => {
    iterator.next().then(
      (result) => arrive(result.done ? "end" : { value: result.value, next: () => pull(iterator) }),
      (error: unknown) => arrive({ error }),
    );
  };

  try {
    const notBegun = iterators.slice(limit);
    for (const iterator of iterators.slice(0, limit)) pull(iterator);
    for (let open = iterators.length; open > 0; ) {
      const arrival = arrivals.shift();
      if (arrival === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
      } else if (arrival === "end") {
        open--;
        const next = notBegun.shift();
        if (next) pull(next);
      } else if ("error" in arrival) throw arrival.error;
      else {
        yield arrival.value;
        arrival.next();
      }
    }
  } finally {
    // Not awaited: a source that waits for something answers only when that ends.
    for (const iterator of iterators) void iterator.return?.()?.then(undefined, () => undefined);
  }
}
