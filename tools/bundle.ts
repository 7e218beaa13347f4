// Writes dist/NAME.mjs for every scripts/NAME.ts: one file that needs only Node (or Deno).
import { chmod, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build, type Plugin, transform } from "esbuild";
import { type Build, buildLine, version } from "../lib/core/version.ts";
import { gitIn } from "../lib/git/git.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

/**
 * What stands around a bundle. It is read as an ES module and, where it was copied without its extension, as CommonJS:
 * so it gets its `require` by the one means that both have. An older Node is refused before it runs anything.
 */
const before = (made: Build) => `#!/usr/bin/env node
${buildLine(made)}
const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 15)) {
  process.stderr.write("Node 20.15 or newer is needed, this is " + process.version + "\\n");
  process.exit(2);
}
import("node:module").then((function (module) {
"use strict";
const scriptFile = process.argv[1];
const require = module.createRequire(scriptFile);
`;
const after = "}));";

/** What an older Node can read, so that it comes as far as being refused. */
const target = "node12.20";
/** Node 12 reads these as they are, though esbuild does not count on it: rewritten they would cost each object time. */
const supported = { "class-field": true, "class-private-field": true };

/** Packages are minified, ours stays as it was written: reading them is most of what a start of the largest takes. */
const minifiedPackages: Plugin = {
  name: "minified-packages",
  setup({ onLoad }) {
    onLoad({ filter: /\/node_modules\/.*\.[cm]?js$/ }, async ({ path }) => {
      const { code } = await transform(await readFile(path, "utf8"), {
        minify: true,
        target,
        supported,
      });
      return { contents: code };
    });
  },
};

/** The commit that is checked out, so that the same commit gives the same bytes; none where git knows nothing. */
async function buildOf(folder: string): Promise<Build> {
  const git = gitIn(folder, { nothrow: true });
  const { ok, stdout } = await git`git log -1 --abbrev=12 ${"--format=%h %ct"}`;
  if (!ok) return { version };
  const [commit, seconds] = stdout.trim().split(" ");
  const date = new Date(Number(seconds) * 1000).toISOString().replace(".000Z", "Z");
  const status = await git`git status --porcelain --untracked-files=no`;
  return { version, commit, date, ...(status.stdout === "" ? {} : { changed: true }) };
}

/** Bundles one script into an executable file. */
export async function bundleScript(entry: string, outfile: string): Promise<void> {
  const made = await buildOf(root);
  await build({
    absWorkingDir: root,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    // Of the ES modules of a package only what is used is carried: a tenth of the S3 client goes.
    mainFields: ["module", "main"],
    format: "cjs",
    target,
    supported,
    logLevel: "warning",
    // zx asks for a global require when it sees Deno; its CommonJS builds do not.
    alias: { "zx/core": join(root, "node_modules/zx/build/core.cjs") },
    // node-fetch asks for it where there is no ReadableStream; Node and Deno have one.
    external: ["web-streams-polyfill"],
    nodePaths: [join(root, "node_modules")],
    plugins: [minifiedPackages],
    define: { "import.meta.url": "scriptFile", bundledBuild: JSON.stringify(made) },
    banner: { js: before(made) },
    footer: { js: after },
  });
  await chmod(outfile, 0o755);
}

if (process.argv[1] && basename(process.argv[1]) === "bundle.ts") {
  const dist = join(root, "dist");
  await rm(dist, { recursive: true, force: true });
  await mkdir(dist);
  const scripts = (await readdir(join(root, "scripts")).catch(() => [])).filter((file) =>
    file.endsWith(".ts"),
  );
  await Promise.all(
    scripts.map((file) =>
      bundleScript(join(root, "scripts", file), join(dist, `${file.slice(0, -3)}.mjs`)),
    ),
  );
  console.log(`${scripts.length} bundles in dist/`);
}
