// A real browser: Debian's chromium, driven by playwright-core. One for all tests of a file.
import { existsSync } from "node:fs";
import process from "node:process";
import type { Browser } from "playwright-core";
import { current } from "./runtime.ts";
import { tempDir } from "./tmp.ts";

const executable = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) => existsSync(path));

/** Why no browser can be had here. */
export const needsChromium =
  current.kind === "deno" ? "the browser is driven by Node" : executable === undefined && "needs chromium";

/** Start the browser, in a home of its own, where it puts its settings. Root's has no sandbox: chromium refuses that. */
export async function startBrowser(): Promise<Browser> {
  const { chromium } = await import("playwright-core");
  return await chromium.launch({
    executablePath: executable ?? "",
    env: { ...process.env, HOME: tempDir() },
    args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
  });
}
