/** Strips of a final answer what does not change its value: delimiters, spacing commands, units, words before it. */

export interface Tidied {
  text: string;
  /** It was written as a percentage. */
  percent: boolean;
}

/** In this order; each is linear in the text. */
const REPLACEMENTS: readonly (readonly [RegExp, string])[] = [
  // Before all else: the second half of a new row is no command.
  [/\\\\/g, "\\newline "],
  // Delimiters of mathematics, and currency signs.
  [/\\[()]|\\\[|\\\]|\\?\$/g, ""],
  [/\\(?:left|right|displaystyle|textstyle|limits|[Bb]igg?[lr]?)(?![a-zA-Z])\.?/g, ""],
  [/\\(?:[,;:! ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z]))|~|\u00a0/g, " "],
  [/\\[dt]frac(?![a-zA-Z])/g, "\\frac"],
  [/\\(?:cdotp|ast)(?![a-zA-Z])/g, "\\cdot"],
  [/\\ge(?![a-zA-Z])|≥|>=/g, "\\geq"],
  [/\\le(?![a-zA-Z])|≤|<=/g, "\\leq"],
  [/∪/g, "\\cup"],
  [/±/g, "\\pm"],
  // Degrees.
  [/\^\s?\{?\s?\\circ\s?\}?|°|\\degree(?![a-zA-Z])|\\deg(?![a-zA-Z])/g, ""],
  // Thousands: 1{,}234, 1\,234 has lost its comma already.
  [/\{,\}/g, ","],
  // Fonts around what counts.
  [/\\(?:mathbf|mathrm|mathbb|mathit|mathsf|operatorname|boldsymbol|bm)\s?\{([^{}]*)\}/g, "$1"],
];

const TEXT = /\\(?:text|textbf|textit|textrm|mbox)\s?\{([^{}]*)\}/g;
/** `\text{cm}^2`: the power belongs to the unit. */
const UNIT = /\\(?:text|textbf|textit|textrm|mbox)\s?\{[^{}]*\}\s?(?:\^\s?(?:\d|\{\d\}))?/g;
const SEPARATOR = /\\(?:text|textrm|mbox)\s?\{\s*(and|or)\s*\}|(?<=\s)(?:and|or)(?=\s)/g;
/** Words (and powers of them) after a number. */
const TRAILING_WORDS = /(?<=[\d)}\]])\s+(?:[a-zA-Z]{2,20}\.?(?:\^\s?(?:\d|\{\d\}))?(?:[\s/]+|$)){1,6}$/;
const GLUED_UNIT = /(?<=\d)(?:cm|mm|km|kg|ml|mi|ft|in|lbs?|mph|hrs?|min|sec)(?:\^\s?(?:\d|\{\d\}))?$/;
const THOUSANDS = /(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])/g;
/** `x =`, `f(x) =`, `\angle ABC =`: what the value is of. */
const NAME_OF = /^\s*(?:\\angle\s?)?[a-zA-Z]{1,3}'?(?:_(?:\w|\{\w{1,8}\}))?(?:\([a-zA-Z](?:,\s?[a-zA-Z])?\))?\s*=(?!=)/;

export function tidy(raw: string): Tidied {
  let text = raw;
  for (const [pattern, by] of REPLACEMENTS) text = text.replace(pattern, by);
  text = text.replace(SEPARATOR, ",").trim();
  const bare = text.replace(UNIT, "").trim();
  // "\text{east}": the words are the answer.
  text = bare === "" ? text.replace(TEXT, "$1").trim() : bare;
  text = text.replace(/[.,;:]+$/, "").trim();
  text = text.replace(NAME_OF, "").trim();
  const percent = /\\?%\s*$|\d\s+percent\s*$/.test(text);
  text = text.replace(/\\?%/g, "").trim();
  text = text.replace(TRAILING_WORDS, "").replace(GLUED_UNIT, "").trim();
  if (!/^[[({\\]/.test(text) || /^\\frac|^\\sqrt/.test(text))
    text = text.replace(THOUSANDS, (digits) => digits.replaceAll(",", ""));
  return { text, percent };
}
