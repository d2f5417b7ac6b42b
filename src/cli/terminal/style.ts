/** Colours of a terminal, or none: every command writes through a `Style`, so NO_COLOR and pipes get plain text. */
export interface Style {
  readonly colour: boolean;
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  /** Foreground and background from the 256-colour palette. */
  paint(text: string, colours: Colours): string;
}

export interface Colours {
  foreground: number;
  background: number;
}

export function createStyle(colour: boolean): Style {
  const wrap =
    (open: string, close: string) =>
    (text: string): string =>
      colour && text !== "" ? `\u001b[${open}m${text}\u001b[${close}m` : text;
  return {
    colour,
    bold: wrap("1", "22"),
    dim: wrap("2", "22"),
    red: wrap("31", "39"),
    green: wrap("32", "39"),
    yellow: wrap("33", "39"),
    paint: (text, { foreground, background }) =>
      // Line by line: a background that runs over a newline fills the rest of the row on many terminals.
      text
        .split("\n")
        .map(wrap(`38;5;${foreground};48;5;${background}`, "39;49"))
        .join("\n"),
  };
}

/** What decides whether to colour, in the order of no-color.org and common practice. */
export interface ColourWish {
  /** `--color` / `--no-color` on the command line. */
  flag?: boolean | undefined;
  noColor?: string | undefined;
  forceColor?: string | undefined;
  term?: string | undefined;
  isTTY: boolean;
}

export function wantsColour(wish: ColourWish): boolean {
  if (wish.flag !== undefined) return wish.flag;
  if (wish.noColor) return false;
  if (wish.forceColor !== undefined && wish.forceColor !== "") return wish.forceColor !== "0";
  return wish.isTTY && wish.term !== "dumb";
}
