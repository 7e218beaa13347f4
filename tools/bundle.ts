// Writes dist/NAME.mjs for every scripts/NAME.ts: one file that needs only Node (or Deno). Packages have the split form.
import { chmod, cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build, type BuildOptions, type OutputFile, type Plugin, transform } from "esbuild";
import { type Build, buildLine, version } from "../lib/core/version.ts";
import { $ } from "../lib/exec/exec.ts";
import { readTemplates } from "../lib/files/templates.ts";
import { scriptNames } from "./scripts.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

const nodeGuard = `const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 15)) {
  process.stderr.write("Node 20.15 or newer is needed, this is " + process.version + "\\n");
  process.exit(2);
}`;

/**
 * What stands around a bundle. It is read as an ES module and, where it was copied without its extension, as CommonJS:
 * so it gets its `require` by the one means that both have. An older Node is refused before it runs anything.
 */
const before = (made: Build) => `#!/usr/bin/env node
${buildLine(made)}
${nodeGuard}
import("node:module").then((function (module) {
"use strict";
const scriptFile = process.argv[1];
const require = module.createRequire(scriptFile);
`;
const after = "}));";

/** What an older Node can read, so that it comes as far as being refused. */
const target = "node12.20";
/**
 * Node 12 reads these as they are, though esbuild does not count on it: rewritten they would cost each object time. It
 * does not read a `#method()`, for which esbuild would keep all fields of its class in WeakMaps: ours are `private`.
 */
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

/**
 * Modules of the split form have only the exports that they name, and CommonJS names none: a package of that kind that
 * is loaded by `await import()` gets a module that names what Node finds in it.
 */
const namedExports: Plugin = {
  name: "named-exports",
  setup({ onResolve, onLoad, resolve, esbuild }) {
    onResolve({ filter: /^[^./]/ }, async ({ path, kind, resolveDir }) => {
      // what packages load themselves they take as it is
      const isOurs = kind === "dynamic-import" && !resolveDir.includes("/node_modules/");
      if (!isOurs || path.startsWith("node:")) return undefined;
      const found = await resolve(path, { kind: "import-statement", resolveDir });
      // a package that another one can do without, and says so when it is asked for: kerberos
      if (found.errors.length > 0) return undefined;
      const alone: BuildOptions = { bundle: true, packages: "external", external: ["./*", "../*"] };
      const { metafile } = await esbuild.build({ ...alone, entryPoints: [found.path], write: false, metafile: true });
      const isCommonJs = Object.values(metafile?.inputs ?? {})[0]?.format === "cjs";
      return isCommonJs ? { path: found.path, namespace: "named" } : undefined;
    });
    onLoad({ filter: /./, namespace: "named" }, ({ path }) => {
      const names = Object.keys(createRequire(path)(path) as object).filter((name) =>
        /^(?!default$)[\w$]+$/.test(name),
      );
      const contents = `import * as all from ${JSON.stringify(path)}; export default all.default ?? all; export const { ${names.join(", ")} } = all;`;
      return { contents, resolveDir: root };
    });
  },
};

/** The commit that is checked out, so that the same commit gives the same bytes; none where git knows nothing. */
async function buildOf(folder: string): Promise<Build> {
  const git = $({ cwd: folder, nothrow: true });
  const { ok, stdout } = await git`git log -1 --abbrev=12 ${"--format=%h %ct"}`;
  if (!ok) return { version };
  const [commit, seconds] = stdout.trim().split(" ");
  const date = new Date(Number(seconds) * 1000).toISOString().replace(".000Z", "Z");
  const status = await git`git status --porcelain --untracked-files=no`;
  return { version, commit, date, ...(status.stdout === "" ? {} : { changed: true }) };
}

/** What both forms have in common. */
const options = (made: Build): BuildOptions => ({
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  // Of the ES modules of a package only what is used is carried: a tenth of the S3 client goes.
  mainFields: ["module", "main"],
  target,
  supported,
  logLevel: "warning",
  // zx asks for a global require when it sees Deno; its CommonJS builds do not.
  alias: {
    "zx/core": join(root, "node_modules/zx/build/core.cjs"),
    zx: join(root, "node_modules/zx/build/index.cjs"),
  },
  // node-fetch asks for it where there is no ReadableStream; Node and Deno have one.
  external: ["web-streams-polyfill"],
  nodePaths: [join(root, "node_modules")],
  plugins: [minifiedPackages],
  define: { bundledBuild: JSON.stringify(made), bundledTemplates: JSON.stringify(readTemplates()) },
  write: false,
});

/**
 * Write a file of a bundle, in ASCII: V8 keeps a text with any other character at two bytes each, and takes longer to
 * read it. esbuild leaves such characters in templates, regular expressions and comments.
 */
async function writeOutput({ path, text }: OutputFile): Promise<void> {
  const ascii = text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, ascii);
}

/** Bundles one script into an executable file. */
export async function bundleScript(entry: string, outfile: string): Promise<void> {
  const made = await buildOf(root);
  const common = options(made);
  const { outputFiles = [] } = await build({
    ...common,
    entryPoints: [entry],
    outfile,
    format: "cjs",
    define: { ...common.define, "import.meta.url": "scriptFile" },
    banner: { js: before(made) },
    footer: { js: after },
  });
  for (const file of outputFiles) await writeOutput(file);
  await chmod(outfile, 0o755);
}

/** A module of the split form may be of a package that asks for `require`. */
const splitBanner = `import { createRequire as requireOf } from "node:module";
const require = requireOf(import.meta.url);`;

/** What is started of the split form: an older Node is refused before it reads anything else. */
const starter = (name: string, made: Build) => `#!/usr/bin/env node
${buildLine(made)}
${nodeGuard}
import(${JSON.stringify(`./lib/${name}.mjs`)});
`;

/**
 * Bundles all scripts, and the demo, into one folder, with what several need in modules of their own: a third of the
 * size of single files. The scripts are NAME.mjs, all else is in lib/.
 */
export async function bundleSplit(folder: string): Promise<void> {
  const made = await buildOf(root);
  const names = await scriptNames();
  const entries = names.map((name) => [name, join(root, "scripts", `${name}.ts`)]);
  const { outputFiles = [] } = await build({
    ...options(made),
    entryPoints: Object.fromEntries([...entries, ["demo", join(root, "tools/demo.ts")]]),
    outdir: join(folder, "lib"),
    outExtension: { ".js": ".mjs" },
    chunkNames: "chunk-[hash]",
    format: "esm",
    splitting: true,
    plugins: [namedExports, minifiedPackages],
    banner: { js: splitBanner },
  });
  for (const file of outputFiles) await writeOutput(file);
  for (const name of names) await writeFile(join(folder, `${name}.mjs`), starter(name, made), { mode: 0o755 });
  await cp(join(root, "tools/demo"), join(folder, "lib/demo"), {
    recursive: true,
    filter: (path) => !path.endsWith(".ts"),
  });
}

/** The commit's time in seconds, by which everything that is made of it is dated. */
export async function commitTime(): Promise<number> {
  const { date } = await buildOf(root);
  return date === undefined ? 0 : Date.parse(date) / 1000;
}

/** Bundles every script into a file of its own. @returns the files */
export async function bundleAll(folder: string): Promise<string[]> {
  const made = (await scriptNames()).map(async (name) => {
    const file = join(folder, `${name}.mjs`);
    await bundleScript(join(root, "scripts", `${name}.ts`), file);
    return file;
  });
  return await Promise.all(made);
}

if (process.argv[1] && basename(process.argv[1]) === "bundle.ts") {
  const dist = join(root, "dist");
  await rm(dist, { recursive: true, force: true });
  await mkdir(dist);
  console.log(`${(await bundleAll(dist)).length} bundles in dist/`);
}
