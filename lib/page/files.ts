import { createHash } from "node:crypto";
import { sequences, sign, suspiciousEverywhere } from "../core/clean.ts";
import { makeAnsi } from "./ansi.ts";
import { client } from "./client.ts";
import { style } from "./style.ts";
import { counted, shortAge, shortDuration } from "./times.ts";

/** The page's own files: script, stylesheet with the colours of logs, and icon. */

let made: ReturnType<typeof makeFiles> | undefined;

/** The script and the stylesheet, whose names change with what is in them. */
export function pageFiles() {
  return (made ??= makeFiles());
}

function makeFiles() {
  return {
    script: named("js", "text/javascript", script()),
    style: named("css", "text/css", style + colourRules()),
  };
}

/** Functions as their texts. esbuild and tsx name what stands in them by `__name`, which is not there in a browser. */
function script(): string {
  const clean = `{ sequences: ${sequences}, sign: ${sign}, suspiciousEverywhere: ${suspiciousEverywhere} }`;
  const times = `counted: ${counted}, shortAge: ${shortAge}, shortDuration: ${shortDuration}`;
  return `const __name = (value) => value;\n(${client})({ ansi: (${makeAnsi})(${clean}), ${times} });\n`;
}

function named(end: string, type: string, text: string) {
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 10);
  return { name: `page-${hash}.${end}`, type, text };
}

/** A boat, as a path in a box of 20 by 20. */
export const boat = "M2 12h16l-3 5H5zM9.2 2v8.4H3.4zM10.8 4.2l5 6.2h-5z";

/** What tells of a state in a browser's tab: by colour, and a failure by its shape, too. */
const icons: Record<string, string> = {
  "": "#2f6fb3",
  ...{ failed: "#d8564c", succeeded: "#3f9a60", running: "#dba32c", starting: "#dba32c" },
  ...{ waiting: "#8a939d", cancelled: "#8a939d", superseded: "#8a939d" },
};

/** The picture in a browser's tab: `icon.svg`, or `icon-STATE.svg`. */
export function iconOf(name: string): { text: string; type: string } | undefined {
  const state = /^icon(?:-([a-z]+))?\.svg$/.exec(name)?.[1] ?? "";
  const colour = name.startsWith("icon") ? icons[state] : undefined;
  if (colour === undefined) return undefined;
  const cross = `<path stroke="#fff" stroke-width="2.5" d="M11 11l7 7m0-7l-7 7"/>`;
  const text = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><path fill="${colour}" d="${boat}"/>
${state === "failed" ? `<circle cx="14.5" cy="14.5" r="5.5" fill="#b3261e"/>${cross}` : ""}</svg>\n`;
  return { text, type: "image/svg+xml" };
}

/** The background of logs, and how much the colours of a log must differ from it (WCAG's ratio). */
const logBackground = [0x0f, 0x13, 0x17] as const;
const contrast = 6;

type Colour = readonly [red: number, green: number, blue: number];

/** The palette of terminals: 16 colours, a cube of 216, 24 grays. */
function palette(): Colour[] {
  const first =
    "15181c e5534b 57ab5a c69026 539bf5 b083f0 39c5cf adbac7 768390 f47067 6bc46d daaa3f 6cb6ff dcbdfb 56d4dd ffffff";
  const levels = [0, 95, 135, 175, 215, 255];
  const cube = levels.flatMap((red) => levels.flatMap((green) => levels.map((blue): Colour => [red, green, blue])));
  const grays = Array.from({ length: 24 }, (_, index): Colour => {
    const value = 8 + 10 * index;
    return [value, value, value];
  });
  const named = first.split(" ").map((hex): Colour => {
    const value = Number.parseInt(hex, 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  });
  return [...named, ...cube, ...grays];
}

function luminance(colour: Colour): number {
  const [red = 0, green = 0, blue = 0] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function ratio(a: Colour, b: Colour): number {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

/** The colour made lighter until it can be read on the log's background. */
function readable(colour: Colour): Colour {
  let now = colour;
  while (ratio(now, logBackground) < contrast)
    now = now.map((value) => Math.min(255, Math.round(value + (255 - value) * 0.12 + 1))) as never;
  return now;
}

const hex = (colour: Colour) => `#${colour.map((value) => value.toString(16).padStart(2, "0")).join("")}`;

/** A class for each colour of text, and for each background, on which the text is black or white. */
function colourRules(): string {
  const colours = palette();
  const texts = colours.map((colour, index) => `.f${index}{color:${hex(readable(colour))}}`);
  const grounds = colours.map((colour, index) => {
    const isLight = ratio(colour, [0, 0, 0]) > ratio(colour, [255, 255, 255]);
    return `.b${index}{background:${hex(colour)};color:${isLight ? "#000" : "#fff"}}`;
  });
  return [...texts, ...grounds, ".x16{background:#d5dbe1;color:#0f1317}"].join("\n");
}
