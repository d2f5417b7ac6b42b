/** Text of rows and models on a page: it is hostile, so it is escaped, and what would reorder or hide other text becomes visible. */
import { html, raw } from "hono/html";
import { sanitise } from "../sanitise.ts";

export { html, raw };

/** Finished, escaped HTML. */
export type Markup = ReturnType<typeof html>;

/** Of one line in a list or a title. */
const LINE_CHARACTERS = 200;

export const line = (value: unknown): string => shorten(sanitise(String(value)).replaceAll("\n", " "), LINE_CHARACTERS);

/** Cut at a whole character, and seen to be cut. */
export function shorten(text: string, characters: number): string {
  return text.length <= characters ? text : `${begin(text, characters)}…`;
}

/** The first so many UTF-16 units, one fewer where that would halve a character. */
export function begin(text: string, characters: number): string {
  const last = text.charCodeAt(characters - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? characters - 1 : characters);
}
