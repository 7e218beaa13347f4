import { createHash } from "node:crypto";
import { assets } from "./assets.ts";
import { colourRules } from "./colours.ts";

/** The page's own files: script, stylesheet and icon. */

let made: ReturnType<typeof makeFiles> | undefined;

/** The script and the stylesheet, whose names change with what is in them. */
export function pageFiles() {
  return (made ??= makeFiles());
}

function makeFiles() {
  const { script, style } = assets;
  return {
    script: named(script, script.text),
    style: named(style, style.text + colourRules()),
  };
}

function named({ end, type }: { end: string; type: string }, text: string) {
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 10);
  return { name: `page-${hash}.${end}`, type, text };
}

/** A boat, as a path in a box of 20 by 20. */
export const boat = "M2 12h16l-3 5H5zM9.2 2v8.4H3.4zM10.8 4.2l5 6.2h-5z";

/** The picture in a browser's tab. */
export const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><path fill="#2f6fb3" d="${boat}"/></svg>\n`;
