// npm run site [-- FOLDER]: the documents as a website, in site/ or a new folder. It works from a web server and from a
// file manager alike, and fetches nothing from elsewhere. build.yml has it made by `build` at every push.
import { copyFile, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import MiniSearch from "minisearch";
import { searchOptions } from "./site/browser/options.ts";
import { pageHtml } from "./site/layout.ts";
import { readSite } from "./site/pages.ts";

const root = fileURLToPath(new URL("../", import.meta.url));
const beside = join(root, "tools/site");

/** Writes the whole site. @param out a folder that is empty, or not there */
export async function makeSite(out: string): Promise<void> {
  await mkdir(out, { recursive: true });
  if ((await readdir(out)).length > 0) throw new Error(`${out} is not empty; name a new folder`);
  const site = await readSite(root);
  for (const page of site.pages) {
    const file = join(out, page.path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, pageHtml(page, site));
  }
  for (const [file, path] of site.pictures) {
    await mkdir(dirname(join(out, path)), { recursive: true });
    await copyFile(join(root, file), join(out, path));
  }
  const search = new MiniSearch(searchOptions);
  search.addAll(site.pages.flatMap(({ sections }) => sections));
  // a script and not JSON, which browsers do not load from a file: address; no "<" that could be taken for a tag
  const index = JSON.stringify(JSON.stringify(search)).replaceAll("<", "\\u003c");
  await writeFile(join(out, "search-index.js"), `window.searchIndex = ${index};\n`);
  await build({
    entryPoints: [join(beside, "browser/search.ts")],
    outfile: join(out, "search.js"),
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2020",
    logLevel: "warning",
  });
  for (const name of ["site.css", "icon.svg"]) await copyFile(join(beside, name), join(out, name));
}

if (process.argv[1]?.endsWith("site.ts")) {
  const standard = join(root, "site");
  const out = resolve(process.argv[2] ?? standard);
  if (out === standard) await rm(out, { recursive: true, force: true });
  await makeSite(out);
  console.log(`${out}: open index.html, or serve the folder`);
}
