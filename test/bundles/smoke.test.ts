// What a person gets who copies one file to a server, and nothing else.
import { copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { version } from "../../lib/core/version.ts";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { scriptNames } from "../../tools/scripts.ts";

const bundles = new Set(await readdir(join(root, "dist")).catch(() => []));
const scripts = await scriptNames();
for (const name of scripts) {
  const missing = !bundles.has(`${name}.mjs`) && "no bundle: npm run bundle";
  testUnless(test, missing)(`${name}.mjs alone in an empty folder says what it is`, async () => {
    const folder = tempDir();
    const file = join(folder, `${name}.mjs`);
    await copyFile(join(root, "dist", `${name}.mjs`), file);
    const options = { cwd: folder, expect: 0 };
    const help = await runCommand([...current.argv(file), "--help"], options);
    assert.match(help.stdout, `${name}: `);
    assert.is(help.stderr, "");
    const shown = await runCommand([...current.argv(file), "--version"], options);
    assert.match(shown.stdout, new RegExp(`^${name} ${version} \\(commit [0-9a-f]{12} of \\S+Z`));
    const typo = await runCommand([...current.argv(file), "--hlep"], { ...options, expect: 2 });
    assert.match(typo.stderr, /unknown flag --hlep.*--help/);
  });
}

test.run();
