export interface Column {
  title: string;
  align?: "left" | "right";
}

/** Plain aligned columns, two spaces apart; widths count characters as a terminal shows them (roughly: no wide scripts). */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((column, c) => Math.max(width(column.title), ...rows.map((row) => width(row[c] ?? ""))));
  const line = (cells: readonly string[]): string =>
    columns
      .map((column, c) => {
        const cell = cells[c] ?? "";
        const space = " ".repeat(Math.max(0, widths[c]! - width(cell)));
        return column.align === "right" ? space + cell : cell + space;
      })
      .join("  ")
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...rows.map(line)].join("\n");
}

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** Columns a text takes: its graphemes without colour codes, wide East Asian ones counted twice. */
export function width(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes begin with ESC
  const plain = text.replace(/\u001b\[[0-9;]*m/g, "");
  let columns = 0;
  for (const { segment } of graphemes.segment(plain)) columns += WIDE.test(segment) ? 2 : 1;
  return columns;
}

const WIDE =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|^\p{Emoji_Presentation}/u;
