// Test files as JavaScript, for a Node that reads no TypeScript: one build for all of them takes a second, tsx in each
// process a third of one.
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Plugin } from "esbuild";
import { root } from "./helpers/runtime.ts";

/** A file still knows the place of its source, and finds what lies beside it. */
const sourcePlaces: Plugin = {
  name: "source-places",
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const contents = (await readFile(path, "utf8"))
        .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(path).href))
        .replaceAll("import.meta.dirname", JSON.stringify(dirname(path)));
      return { contents, loader: "ts" };
    });
  },
};

/** Compiles the files, with what they import of ours, into `folder`. @returns the compiled file of each */
export async function compileTests(files: string[], folder: string): Promise<Map<string, string>> {
  // Deno, which starts the runner as well, has no need of it
  const { build } = await import("esbuild");
  const names = new Map(files.map((file, index) => [file, `${index}-${basename(file, ".ts")}`]));
  await build({
    entryPoints: [...names].map(([file, out]) => ({ in: join(root, file), out })),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    packages: "external",
    platform: "node",
    target: "node20",
    format: "esm",
    keepNames: true,
    sourcemap: "inline",
    plugins: [sourcePlaces],
    logLevel: "warning",
  });
  return new Map([...names].map(([file, name]) => [file, join(folder, `${name}.mjs`)]));
}
