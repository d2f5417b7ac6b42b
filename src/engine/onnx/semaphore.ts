/** At most `count` holders at a time; the others wait in order. */
export function createSemaphore(count: number): { hold<T>(work: () => Promise<T>): Promise<T> } {
  const queue: (() => void)[] = [];
  let free = count;
  return {
    async hold(work) {
      if (free > 0) free--;
      else await new Promise<void>((resolve) => queue.push(resolve));
      try {
        return await work();
      } finally {
        const next = queue.shift();
        if (next) next();
        else free++;
      }
    },
  };
}
