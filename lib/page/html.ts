import { sign, suspiciousEverywhere } from "../core/clean.ts";

/** HTML that is safe as it is: made by `html`, every value in it escaped. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand in a template: text is escaped; lists are joined; nothing is left of undefined and false. */
export type Value = Html | string | number | undefined | false | readonly Value[];

/**
 * HTML from a template. Each value is escaped for text and for attributes in double quotes, and what in it would act
 * (control characters, signs that turn the direction of text) is shown as a sign. It does not judge addresses: what
 * goes into `href` is checked where it is read.
 */
export function html(strings: TemplateStringsArray, ...values: readonly Value[]): Html {
  let text = strings[0] ?? "";
  for (const [index, value] of values.entries()) text += textOf(value) + (strings[index + 1] ?? "");
  return new Html(text);
}

function textOf(value: Value): string {
  if (value instanceof Html) return value.text;
  if (typeof value === "string") return escapeHtml(value);
  if (typeof value === "number") return String(value);
  return value ? value.map(textOf).join("") : "";
}

const signs: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text as it may stand between tags and in attributes: nothing is left out, or two names could look the same. */
function escapeHtml(text: string): string {
  return text.replace(suspiciousEverywhere, sign).replace(/[&<>"']/g, (each) => signs[each] ?? "");
}
