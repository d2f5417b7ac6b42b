/** What is needed of `process.stderr`. */
export interface StatusStream {
  isTTY?: boolean | undefined;
  write(text: string): unknown;
}

/** One line that is redrawn; nothing at all where there is no terminal. */
export function statusLine(stream: StatusStream): { show(text: string): void; clear(): void } {
  const draw = (text: string): void => {
    if (stream.isTTY) stream.write(`\r${text}\u001b[K`);
  };
  return { show: draw, clear: () => draw("") };
}
