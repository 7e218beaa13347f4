import type * as clean from "../core/clean.ts";

/**
 * Lines of a terminal as spans of text with class names. It runs on the server and in the browser, gives text and no
 * HTML, and knows colours and weights only: whatever else a line holds is left out, or shown as a sign.
 */

/** What a line begins with: colours, -1 to 255; flags (bold 1, dim 2, italic 4, underline 8, inverse 16, struck 32). */
export interface Style {
  readonly fg: number;
  readonly bg: number;
  readonly flags: number;
}

/** A piece of a line; no class: as all else. */
export type Span = readonly [text: string, classes: string];

export type Ansi = ReturnType<typeof makeAnsi>;

/** What it has of lib/core/clean.ts; it names nothing outside of itself, as a browser gets its text (files.ts). */
type Cleaning = Pick<typeof clean, "sequences" | "sign" | "suspiciousEverywhere">;

export function makeAnsi({ sequences, sign, suspiciousEverywhere }: Cleaning) {
  const plainStyle: Style = { fg: -1, bg: -1, flags: 0 };

  /** A style in a few characters, for an index and for the browser. */
  function styleText({ fg, bg, flags }: Style): string {
    return `${fg},${bg},${flags}`;
  }

  function parseStyle(text: string): Style {
    const [fg = -1, bg = -1, flags = 0] = text.split(",").map(Number);
    return { fg, bg, flags };
  }

  /** More of a line is not shown: one of megabytes would freeze a page. */
  const maxShown = 5000;

  /**
   * The spans of a line, and the style with which the next one begins. Of a progress bar that redraws itself with
   * carriage returns the last state stays.
   */
  function spansOf(line: string, style: Style): { spans: Span[]; style: Style } {
    if (line.length > maxShown) {
      const rest = line.length - maxShown;
      const cut = spansOf(line.slice(0, maxShown), style);
      cut.spans.push([` … ${rest} more characters are in the raw log`, "x2"]);
      // a style that is set in the part that is not shown counts for the next line
      return { spans: cut.spans, style: styleAfter(line.slice(maxShown), cut.style) };
    }
    const whole = line.replace(/\r+$/, "");
    const end = whole.lastIndexOf("\r") + 1;
    const text = whole.slice(end);
    let now = styleAfter(whole.slice(0, end), style);
    const spans: Span[] = [];
    const add = (piece: string) => {
      if (piece === "") return;
      const shown = piece.replace(suspiciousEverywhere, sign);
      const classes = classesOf(now);
      const last = spans.at(-1);
      if (last && last[1] === classes) spans[spans.length - 1] = [last[0] + shown, classes];
      else spans.push([shown, classes]);
    };
    let at = 0;
    for (const match of text.matchAll(sequences)) {
      add(text.slice(at, match.index));
      at = match.index + match[0].length;
      now = afterSequence(match[0], now);
    }
    add(text.slice(at));
    return { spans, style: now };
  }

  /** The style after a text whose lines nobody shows. */
  function styleAfter(text: string, style: Style): Style {
    let now = style;
    for (const [sequence] of text.matchAll(sequences)) now = afterSequence(sequence, now);
    return now;
  }

  const colours = /^(?:\u001b\[|\u009b)([\d;:]*)m$/;

  function afterSequence(sequence: string, style: Style): Style {
    const found = colours.exec(sequence)?.[1];
    if (found === undefined) return style;
    // in the form with colons the parameters of one colour stand together, and an empty one is left out
    const codes = found.split(";").flatMap((part) => {
      if (!part.includes(":")) return [Number(part)];
      const [kind = "0", way = "", ...more] = part.split(":");
      const values = way === "2" && more.length > 3 ? more.slice(1) : more;
      return [kind, way, ...values].map(Number);
    });
    let { fg, bg, flags } = style;
    for (let at = 0; at < codes.length; at++) {
      const code = codes[at] ?? 0;
      if (code === 0) [fg, bg, flags] = [-1, -1, 0];
      else if (code === 38 || code === 48) {
        const [colour, length] = extended(codes, at);
        at += length;
        if (code === 38) fg = colour ?? fg;
        else bg = colour ?? bg;
      } else if (code >= 30 && code <= 37) fg = code - 30;
      else if (code === 39) fg = -1;
      else if (code >= 40 && code <= 47) bg = code - 40;
      else if (code === 49) bg = -1;
      else if (code >= 90 && code <= 97) fg = code - 82;
      else if (code >= 100 && code <= 107) bg = code - 92;
      else if (code === 22) flags &= ~3;
      else if (setsFlag[code] !== undefined) flags |= setsFlag[code];
      else if (clearsFlag[code] !== undefined) flags &= ~clearsFlag[code];
    }
    return { fg, bg, flags };
  }

  const setsFlag: Record<number, number> = { 1: 1, 2: 2, 3: 4, 4: 8, 7: 16, 9: 32, 21: 8 };
  const clearsFlag: Record<number, number> = { 23: 4, 24: 8, 27: 16, 29: 32 };

  /** The colour after 38 or 48, and how many codes it takes. */
  function extended(codes: readonly number[], at: number): [colour: number | undefined, length: number] {
    const byte = (offset: number) => Math.min(255, Math.max(0, codes[at + offset] || 0));
    if (codes[at + 1] === 5) return [byte(2), 2];
    if (codes[at + 1] === 2) return [nearest(byte(2), byte(3), byte(4)), 4];
    return [undefined, 1];
  }

  /** The nearest of the palette's 256 colours: a class can name these, and no style needs to stand in the page. */
  function nearest(red: number, green: number, blue: number): number {
    const level = (value: number) => (value < 48 ? 0 : value < 115 ? 1 : Math.floor((value - 35) / 40));
    const spread = Math.max(red, green, blue) - Math.min(red, green, blue);
    if (spread < 10 && red > 3 && red < 243) return 232 + Math.round((red - 8) / 10.3);
    return 16 + 36 * level(red) + 6 * level(green) + level(blue);
  }

  function classesOf({ fg, bg, flags }: Style): string {
    const classes = [];
    if (fg >= 0) classes.push(`f${fg}`);
    if (bg >= 0) classes.push(`b${bg}`);
    for (let flag = 1; flag <= 32; flag *= 2) if (flags & flag) classes.push(`x${flag}`);
    return classes.join(" ");
  }

  return { plainStyle, styleText, parseStyle, spansOf, styleAfter };
}
