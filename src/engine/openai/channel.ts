/** What one side pushes the other side reads in order; nothing is lost, and an error comes after what was pushed before it. */
export interface Channel<T> extends AsyncIterable<T> {
  push(item: T): void;
  end(error?: unknown): void;
}

export function createChannel<T>(): Channel<T> {
  const items: T[] = [];
  let ended = false;
  let failure: unknown;
  let wake = (): void => undefined;
  return {
    push(item) {
      items.push(item);
      wake();
    },
    end(error) {
      ended = true;
      failure = error;
      wake();
    },
    async *[Symbol.asyncIterator]() {
      while (true) {
        if (items.length > 0) yield items.shift() as T;
        else if (failure !== undefined) throw failure;
        else if (ended) return;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    },
  };
}
