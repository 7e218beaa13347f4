// A program of the checkout's sources as one file, so that what is timed is its work and not tsx.
import { join } from "node:path";
import process from "node:process";
import { build } from "esbuild";

/** Bundles `entry`, which may lie outside of the checkout, into `outfile`, an .mjs. */
export async function bundled(entry: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "esm",
    nodePaths: [join(process.cwd(), "node_modules")],
    // packages that are CommonJS ask for it
    banner: {
      js: 'import { createRequire as requireOf } from "node:module"; const require = requireOf("/");',
    },
    logLevel: "warning",
  });
}
