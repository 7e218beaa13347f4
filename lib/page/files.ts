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

/** The palette of terminals: 16 colours, a cube of 216, 24 grays. */
function palette(): string[] {
  const first =
    "15181c e5534b 57ab5a c69026 539bf5 b083f0 39c5cf adbac7 768390 f47067 6bc46d daaa3f 6cb6ff dcbdfb 56d4dd ffffff";
  const two = (value: number) => value.toString(16).padStart(2, "0");
  const levels = [0, 95, 135, 175, 215, 255].map(two);
  const cube = levels.flatMap((red) => levels.flatMap((green) => levels.map((blue) => red + green + blue)));
  const grays = Array.from({ length: 24 }, (_, index) => two(8 + 10 * index).repeat(3));
  return [...first.split(" "), ...cube, ...grays].map((hex) => `#${hex}`);
}

/**
 * A class for each colour of text and of its ground. The browser makes text light enough for the log (a contrast of 6
 * at least), and black or white on a ground of its own, by that one's luminance `y`.
 */
function colourRules(): string {
  const classes = palette().map((colour, index) => `.f${index}{--f:${colour}}.b${index}{--b:${colour}}`);
  const light = (most: number) => `clamp(0,(.179 - y)*1e4,${most})`;
  return `${classes.join("\n")}
.t>[class]{color:oklch(from var(--f,#d5dbe1) max(l,.7) min(c,.16) h)}
.t>[class*=b]{background:var(--b);color:color(from var(--b) xyz ${light(0.95)} ${light(1)} ${light(1.089)})}
.t>.x16{background:#d5dbe1;color:#0f1317}`;
}
