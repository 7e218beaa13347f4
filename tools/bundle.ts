// Writes dist/NAME.mjs for every scripts/NAME.ts: one file that needs only Node (or Deno).
import { chmod, mkdir, readdir, rm } from "node:fs/promises";
import { isBuiltin } from "node:module";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "esbuild";

const root = fileURLToPath(new URL("../", import.meta.url));

/** What a bundle begins with: packages in CommonJS expect a `require`; an older Node is told so before it runs anything. */
const banner = `#!/usr/bin/env node
import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
{
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 15)) {
    process.stderr.write("Node 20.15 or newer is needed, this is " + process.version + "\\n");
    process.exit(2);
  }
}`;

/** Bundles one script into an executable file. */
export async function bundleScript(entry: string, outfile: string): Promise<void> {
  await build({
    absWorkingDir: root,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    // What old versions of Node can parse, so that they come as far as the banner.
    target: "node12.20",
    logLevel: "warning",
    // zx asks for a global require when it sees Deno; its CommonJS builds do not.
    alias: { "zx/core": join(root, "node_modules/zx/build/core.cjs") },
    nodePaths: [join(root, "node_modules")],
    banner: { js: banner },
    plugins: [requiredBuiltins],
  });
  await chmod(outfile, 0o755);
}

/**
 * Built-ins are required where a module is first used. As imports they would stand at the top of the bundle, where
 * an older Node looks for their names before it reaches the banner, and each start would load them all.
 */
const requiredBuiltins: Plugin = {
  name: "required-builtins",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^[a-z]/ }, ({ kind, path }) =>
      isBuiltin(path) && kind !== "require-call" ? { path, namespace: "builtin" } : undefined,
    );
    onLoad({ filter: /.*/, namespace: "builtin" }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)});`,
    }));
  },
};

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
