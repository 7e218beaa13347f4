// Writes dist/NAME.mjs for every scripts/NAME.ts: one file that needs only Node (or Deno).
// Our own code stays readable in it. A package behind `await import()` is carried as compressed
// text and unpacked at that import, so that `NAME --help` never pays for parsing it.
import { chmod, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { build, type BuildOptions, type Plugin } from "esbuild";

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
      ].join("\n"),
    },
    plugins: [ownShebang, packedPackages, lateBuiltins],
  });
  await chmod(outfile, 0o755);
}

/** The banner brings the shebang of a bundle; the source has another one. */
const ownShebang: Plugin = {
  name: "own-shebang",
  setup({ onLoad }) {
    onLoad({ filter: /\/scripts\/[^/]+\.ts$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(/^#!.*/, ""),
      loader: "ts",
    }));
  },
};

/**
 * Loads the heavier built-ins when the first module that imports them runs. As static imports they
 * would stand at the top of the bundle, and a start that never spawns or hashes would pay for them.
 */
const lateBuiltins: Plugin = {
  name: "late-builtins",
  setup({ onResolve, onLoad }) {
    onResolve(
      { filter: /^node:(?:child_process|crypto|zlib|https?|os|(?:stream|timers)\/promises)$/ },
      ({ kind, path }) => (kind === "import-statement" ? { path, namespace: "late" } : undefined),
    );
    onLoad({ filter: /.*/, namespace: "late" }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)});`,
    }));
  },
};

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
      return { contents: unpacking(path, await text, Object.keys(await import(path))) };
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

/** The module that stands for the package. The text is code from our lock file, nothing else. */
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
