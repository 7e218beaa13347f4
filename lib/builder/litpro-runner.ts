import process from "node:process";

/**
 * litpro, started so that it does what it does alone, but says what it otherwise keeps to itself.
 * In literate-programming-cli 2.1 `Folder.lprc` is `try { require(name)(this, args) } catch (e) {}`, and
 * `checksum` trusts its own list of outputs, even where they were deleted or changed by a checkout since.
 * Both are methods of an exported object, so they are replaced before litpro's own file is loaded.
 */
function patched(file: string, force: boolean): string {
  return `
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
const file = ${JSON.stringify(file)};
const own = createRequire(file);
let cli;
try { cli = own("literate-programming-cli"); } catch { /* another litpro: it runs as it is */ }
if (cli?.Folder?.lprc) {
  cli.Folder.lprc = function (name, args) {
    if (!existsSync(name)) return;
    try {
      const settings = own(name);
      if (typeof settings !== "function") throw new Error("it exports no function; write module.exports = function (Folder, args) { ... }");
      settings(this, args);
    } catch (error) {
      console.log("error:lprc.js: " + String(error?.message ?? error).split("\\n")[0]);
      console.error(error?.stack ?? error);
    }
  };
}
const checksum = cli?.Folder?.checksum;
if (typeof checksum?.firstLoad === "function") {
  const load = checksum.firstLoad;
  checksum.firstLoad = function (...all) {
    load.apply(this, all);
    if (${force}) this.data = {};
    for (const name of Object.keys(this.data ?? {})) {
      let hash;
      try { hash = createHash("sha1").update(readFileSync(name)).digest("hex"); } catch { /* it is gone */ }
      if (hash !== this.data[name]) delete this.data[name];
    }
  };
}
own(file);
`;
}

/** The argv that runs litpro in its folder; a litpro that is no JavaScript file of known kind is run as it is. */
export function litproRunner(program: readonly string[], { force }: { force: boolean }): string[] {
  const file = program.at(-1) ?? "";
  if (!file.endsWith(".js")) return [...program];
  const code = patched(file, force);
  if (process.versions.deno) return [process.execPath, "eval", code];
  return [process.execPath, "--input-type=module", "-e", code];
}
