// Writes dist/NAME.mjs for every scripts/NAME.ts: one file that needs only Node (or Deno).
// Our own code stays readable in it. A package behind `await import()` is carried as compressed
// text and unpacked at that import, so that `NAME --help` never pays for parsing it.
import { chmod, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { builtinModules } from "node:module";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { build, type BuildOptions, type Plugin, transform } from "esbuild";

const root = fileURLToPath(new URL("../", import.meta.url));

const common = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  target: "node20",
  write: false,
  logLevel: "warning",
  // zx asks for a global require when it sees Deno; its CommonJS builds do not.
  alias: {
    zx: join(root, "node_modules/zx/build/index.cjs"),
    "zx/core": join(root, "node_modules/zx/build/core.cjs"),
  },
  nodePaths: [join(root, "node_modules")],
} satisfies BuildOptions;

/** Node has these loaded before the first line of a script; the others cost a start up to three milliseconds each. */
const loaded = new Set(
  ["buffer", "events", "fs", "fs/promises", "path", "process", "url", "util"].map(
    (name) => `node:${name}`,
  ),
);
const lateName = (builtin: string) => builtin.replace("node:", "").replace("/", "_");
const lateModules = builtinModules
  .map((name) => `node:${name}`)
  .filter((name) => !loaded.has(name) && !name.startsWith("node:_"));

/** The object whose properties are the other built-in modules, each loaded at its first use. */
const late = `
const __late = {};
for (const [name, builtin] of ${JSON.stringify(lateModules.map((each) => [lateName(each), each]))})
  Object.defineProperty(__late, name, {
    configurable: true,
    get() {
      const value = require(builtin);
      Object.defineProperty(__late, name, { value });
      return value;
    },
  });`;

/** Bundles one script into an executable file. */
export async function bundleScript(entry: string, outfile: string): Promise<void> {
  await build({
    ...common,
    entryPoints: [entry],
    outfile,
    write: true,
    format: "esm",
    banner: {
      // Packages in CommonJS expect a require.
      js: [
        "#!/usr/bin/env node",
        "import { createRequire as __createRequire } from 'node:module';",
        "const require = __createRequire(import.meta.url);",
        late,
      ].join("\n"),
    },
    plugins: [requiredBuiltins, withoutSupportsColor, packedPackages],
  });
  await chmod(outfile, 0o755);
}

/**
 * Turns a module's imports of built-ins into calls of require. As imports they would all stand at
 * the top of the bundle, where every start pays for them, and Node would make a namespace of each,
 * for which it reads every property: for `node:process` that opens the standard streams.
 */
const requiredBuiltins: Plugin = {
  name: "required-builtins",
  setup({ onLoad }) {
    onLoad({ filter: /\.[jt]s$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const head = /^(?:#!.*|\s|\/\/.*|\/\*[^]*?\*\/|import\b[^;]*;)*/.exec(text)?.[0] ?? "";
      const late: Record<string, string> = {};
      const start = head
        // the banner brings the shebang of a bundle; a script's source has another one
        .replace(/^#!.*/, "")
        .replace(builtinImport, (_, whole: string | undefined, names: string, builtin: string) =>
          loaded.has(builtin)
            ? requiring(whole, names, builtin)
            : noteUses(late, whole, names, builtin),
        );
      const contents = start + text.slice(head.length);
      const loader = path.endsWith(".ts") ? "ts" : "js";
      if (Object.keys(late).length === 0) return { contents, loader };
      return { contents: (await transform(contents, { loader, define: late })).code, loader: "js" };
    });
  },
};

const builtinImport = /^import (?:(\w+)|\{([^}]*)\}) from ["'](node:[\w/]+)["'];/gm;

function requiring(whole: string | undefined, names: string, builtin: string): string {
  const bound = whole ?? `{ ${valuesOf(names).join(", ").replace(/ as /g, ": ")} }`;
  return `const ${bound} = require("${builtin}");`;
}

/** Notes that what is imported stands for a property that is looked up where it is used: `__late.crypto.createHash`. */
function noteUses(
  uses: Record<string, string>,
  whole: string | undefined,
  names: string,
  builtin: string,
): string {
  const module = `__late.${lateName(builtin)}`;
  if (whole) uses[whole] = module;
  for (const value of whole ? [] : valuesOf(names)) {
    const [name = "", as = name] = value.split(" as ");
    uses[as] = `${module}.${name}`;
  }
  return "";
}

function valuesOf(names: string): string[] {
  return names
    .split(",")
    .map((each) => each.trim())
    .filter((each) => !/^(type |$)/.test(each));
}

/**
 * Whether there are colours is for lib/cli/terminal.ts to say. What chalk has for it loads node:tty and
 * with that node:net at every start; its variant for browsers asks nobody.
 */
const withoutSupportsColor: Plugin = {
  name: "without-supports-color",
  setup({ onResolve }) {
    onResolve({ filter: /^#supports-color$/ }, () => ({
      path: join(root, "node_modules/chalk/source/vendor/supports-color/browser.js"),
    }));
  },
};

/** Every word of our sources: what they use of a package is among them. */
async function wordsOf(folders: string[]): Promise<Set<string>> {
  const words = new Set<string>();
  for (const folder of folders)
    for (const file of await readdir(join(root, folder), { recursive: true }))
      if (file.endsWith(".ts"))
        for (const [word] of (await readFile(join(root, folder, file), "utf8")).matchAll(/[\w$]+/g))
          words.add(word);
  return words;
}

const words = await wordsOf(["lib", "scripts"]);
const packed = new Map<string, Promise<string>>();

/** Turns `await import("package")` into unpacking a text that stands in the bundle. */
const packedPackages: Plugin = {
  name: "packed-packages",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^[^./]/ }, ({ kind, path }) =>
      kind === "dynamic-import" && !path.startsWith("node:")
        ? { path, namespace: "packed" }
        : undefined,
    );
    onLoad({ filter: /.*/, namespace: "packed" }, async ({ path }) => {
      const text = packed.get(path) ?? pack(path);
      packed.set(path, text);
      const names = Object.keys(await import(path)).filter((name) => words.has(name));
      return { contents: unpacking(path, await text, names) };
    });
  },
};

/** The whole package as one CommonJS text, compressed, in base64. */
async function pack(name: string): Promise<string> {
  const { outputFiles } = await build({
    ...common,
    stdin: { contents: `export * as all from ${JSON.stringify(name)}`, resolveDir: root },
    format: "cjs",
    minify: true,
    keepNames: true, // errors are told apart by their class's name
    define: { "import.meta.url": '"file:///"' },
    supported: { "dynamic-import": false },
  });
  const code = outputFiles[0]?.contents ?? new Uint8Array();
  const params = { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_LGWIN]: 22 };
  return brotliCompressSync(code, { params }).toString("base64");
}

/**
 * The module that stands for the package and for the `names` that are used of it: each costs every start a little, and
 * the S3 client has a thousand. The text is code from our lock file, nothing else.
 */
function unpacking(name: string, text: string, names: string[]): string {
  const plain = names.filter((each) => /^[a-z_$][\w$]*$/i.test(each) && each !== "default");
  return `
    // require: a static import of zlib would be paid for by every start.
    const { brotliDecompressSync } = require("node:zlib");
    const { Buffer } = require("node:buffer");
    const code = brotliDecompressSync(Buffer.from("${text}", "base64")).toString();
    const module = { exports: {} };
    new Function("require", "module", "exports", code + "\\n//# sourceURL=bundled:${name}")(
      require, module, module.exports);
    export const { ${plain.join(", ")} } = module.exports.all;
    export default module.exports.all.default;
  `;
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
