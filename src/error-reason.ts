/** Why a connection failed, in a word: "fetch failed" says nothing, its cause does. */
export function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(cause instanceof Error)) return "unknown error";
  return (cause as NodeJS.ErrnoException).code ?? cause.message.slice(0, 120);
}
