// Deno runs the scripts from a fresh clone, without npm: by deno.json and deno.lock.
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { scriptNames } from "../../tools/scripts.ts";

const readJson = async (name: string) => JSON.parse(await readFile(join(root, name), "utf8"));
const scripts = await scriptNames();

test("Deno imports the versions of the packages that Node imports", async () => {
  const { dependencies, devDependencies } = await readJson("package.json");
  // litpro is a program, uvu and smtp-server are for the tests
  const { litpro: _, ...libraries } = dependencies;
  const wanted = Object.entries({
    ...libraries,
    uvu: devDependencies.uvu,
    "smtp-server": devDependencies["smtp-server"],
  });
  assert.equal(
    (await readJson("deno.json")).imports,
    Object.fromEntries(wanted.map(([name, version]) => [name, `npm:${name}@${version}`]).sort()),
    "after a change of package.json correct deno.json, then run: npm run lock:deno",
  );
  // else the first command in a fresh clone changes the file
  const named = Object.entries({ ...dependencies, ...devDependencies });
  assert.equal(
    (await readJson("deno.lock")).workspace.packageJson.dependencies,
    named.map(([name, version]) => `npm:${name}@${version}`).sort(),
    "after a change of package.json run: npm run lock:deno",
  );
});

testUnless(test, current.kind !== "deno" && "needs Deno")(
  "deno.lock has what each script loads: Deno runs it with --frozen",
  async () => {
    for (const script of scripts) {
      const argv = [process.execPath, "run", "--frozen", "-A", join(root, "scripts", `${script}.ts`)];
      const { stdout } = await runCommand([...argv, "--version"], { expect: 0 });
      assert.match(stdout, script.slice(0, -3));
    }
  },
);

testUnless(test, current.kind !== "deno" && "needs Deno")(
  "deno install --global makes a command of a script",
  async () => {
    const folder = tempDir();
    const settings = ["--config", join(root, "deno.json"), "--name", "by-logs"];
    const install = ["install", "--global", "--quiet", "-A", ...settings];
    await runCommand([process.execPath, ...install, join(root, "scripts/logs.ts")], {
      env: { DENO_INSTALL_ROOT: folder },
      expect: 0,
    });
    const path = `${dirname(process.execPath)}:${process.env["PATH"]}`;
    const command = [join(folder, "bin/by-logs"), "--version"];
    const { stdout } = await runCommand(command, { env: { PATH: path }, expect: 0 });
    assert.match(stdout, "logs ");
  },
);

test.run();
