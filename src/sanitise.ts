/**
 * Model output is untrusted: an escape sequence in it could move the cursor, change the title or write to the clipboard.
 * Control characters become their visible Unicode pictures (U+2400…); newline and tab stay.
 */
export function sanitise(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this removes
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, picture);
}

/** The same on one line: newlines and tabs become ⏎ and ⇥. */
export function sanitiseLine(text: string): string {
  return sanitise(text).replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

function picture(character: string): string {
  const code = character.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  // C1 controls and bidirectional overrides have no picture.
  return "\ufffd";
}
