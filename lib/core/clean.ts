/**
 * Makes others' text (a child's output, a payload, a remote's message) harmless for the reader's terminal: what
 * moves the cursor, sets titles or the clipboard, or answers as if typed, is taken out; colours stay where they
 * are wanted; other control characters, and those that turn the direction of text, are shown as visible signs.
 */

const suspicious = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

/** Escape sequences, to be searched for from the text's start. */
// ECMA-48: CSI; the strings OSC, DCS, SOS, PM and APC with their end; any other escape. Each in 7 bits and in 8.
// No string holds what begins another: then many without an end are not searched to the text's end each.
export const sequences = new RegExp(
  String.raw`(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|(?:\u001b[\]PX^_]|[\u009d\u0090\u0098\u009e\u009f])` +
    String.raw`[^\u0007\u001b\u0080-\u009f]*(?:\u0007|\u001b\\|\u009c)|\u001b[ -/]*[0-~]?`,
  "g",
);
const colour = /^\u001b\[[0-9;:]*m$/;
const remaining = /[\u0000-\u0008\u000a-\u001a\u001c-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Whether a text can be shown as it is. */
export function isHarmless(text: string): boolean {
  return !suspicious.test(text);
}

export function hasEscapes(text: string): boolean {
  return text.includes("\u001b") || text.includes("\u009b");
}

/** The text without escape sequences: what is searched, and what goes to files and pipes. */
export function withoutEscapes(text: string): string {
  return text.replace(sequences, "");
}

/**
 * A text as it may be shown. Of a progress bar that redraws itself with carriage returns the last state
 * stays, as on a terminal.
 * @param colours keep the child's own colours (SGR sequences), and end them with the line.
 */
export function cleanText(text: string, colours = false): string {
  if (isHarmless(text)) return text;
  const last = lastState(text);
  let coloured = false;
  const safe = last.replace(sequences, (sequence) => {
    if (!colours || !colour.test(sequence)) return "";
    coloured = true;
    return sequence;
  });
  const visible = safe.replace(colours ? remaining : suspiciousEverywhere, sign);
  return coloured ? `${visible}\u001b[0m` : visible;
}

/** All that is to be shown as a sign. */
export const suspiciousEverywhere = new RegExp(suspicious.source, "g");

/** Text of several lines as one: for a line of a log. Nothing in it can hide what stands before it. */
export function cleanLine(text: string): string {
  return cleanText(text.trimEnd().replace(/\r\n|[\r\n]/g, " | "));
}

/** JSON in which nothing acts on a terminal; its value is the same. */
export function cleanJson(json: string): string {
  return json.replace(
    suspiciousEverywhere,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function lastState(text: string): string {
  if (!text.includes("\r")) return text;
  const states = text.split("\r");
  return states.findLast((state) => withoutEscapes(state).trim() !== "") ?? "";
}

/** `^G` for a control character, `<9b>` or `<202e>` for the others. */
export function sign(character: string): string {
  const code = character.charCodeAt(0);
  if (code < 32) return `^${String.fromCharCode(code + 64)}`;
  return code === 127 ? "^?" : `<${code.toString(16)}>`;
}
