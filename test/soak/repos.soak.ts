// Published packages as repos of their own, with several litpros and package managers: `build` makes of each what is made
// by hand. Their lock files (test/fixtures/repos) were made once, each by its manager.
import { existsSync } from "node:fs";
import { cp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageManager, trust } from "../helpers/npm-packages.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const fixtures = join(root, "test/fixtures/repos");
const home = tempDir("home-");

/** Each manager's program, and its install by hand. */
const managers = {
  npm: { program: "npm", install: ["npm", "ci"] },
  pnpm: { program: "pnpm", install: ["pnpm", "install", "--frozen-lockfile"] },
  "yarn-1": { program: "yarn", install: ["yarn", "install", "--frozen-lockfile"] },
  yarn: { program: "yarn", install: ["yarn", "install", "--immutable"] },
  bun: { program: "bun", install: ["bun", "install", "--frozen-lockfile"] },
  deno: { program: "deno", install: ["deno", "install", "--frozen"] },
} as const;
type Manager = keyof typeof managers;

async function managerOf(fixture: string): Promise<Manager> {
  const names = await readdir(fixture);
  if (names.includes("package-lock.json")) return "npm";
  if (names.includes("pnpm-lock.yaml")) return "pnpm";
  if (names.includes("bun.lock")) return "bun";
  if (names.includes("deno.lock")) return "deno";
  const lock = await readFile(join(fixture, "yarn.lock"), "utf8");
  return lock.startsWith("# THIS") ? "yarn-1" : "yarn";
}

/** Where the manager is, and the environment that finds it. */
async function environmentFor(manager: Manager, bin: string) {
  if (manager !== "npm") {
    const { file, reason } = await packageManager(manager);
    if (file === undefined) throw new Error(reason);
    await symlink(file, join(bin, managers[manager].program));
  }
  const PATH = [bin, process.env["PATH"]].join(delimiter);
  return {
    ...trust,
    HOME: home,
    TMPDIR: home,
    PATH,
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_CONFIG_NOSYSTEM: "1",
  };
}

/** The published package with the fixture's package files, a document, and an lprc.js where it has none. */
async function publish(spec: string, dir: string): Promise<(dir: string) => Promise<string>> {
  const packed = await runCommand(["npm", "pack", "--silent", spec], {
    cwd: dir,
    env: trust,
    expect: 0,
  });
  const files = join(dir, "package");
  await runCommand(["tar", "-xzf", packed.stdout.trim(), "--no-same-owner"], {
    cwd: dir,
    expect: 0,
  });
  await cp(join(fixtures, spec), files, { recursive: true });
  await cp(join(root, "test/fixtures/litpro/commands/project.md"), join(files, "project.md"));
  const names = "node_modules/\nlogs.txt*\n.yarn/\n.pnp.*\nbuild/\n";
  await writeFile(join(files, ".gitignore"), names);
  if (litproIn(await readFile(join(files, "package.json"), "utf8")) && !existsSync(join(files, "lprc.js")))
    await writeFile(join(files, "lprc.js"), "module.exports = function () {};\n");
  const repo = await makeRepo({ dir });
  await cp(files, repo.work, { recursive: true });
  await repo.push({});
  return repo.checkout;
}

/** The literate program compiler that a package.json asks for. */
function litproIn(text: string): string | undefined {
  const { devDependencies = {} } = JSON.parse(text) as { devDependencies?: Record<string, string> };
  return ["literate-programming", "litpro"].find((name) => devDependencies[name] !== undefined);
}

const online = await runCommand(["npm", "view", "ms", "version"], {
  env: trust,
  timeout: 30_000,
}).then(
  ({ code }) => code === 0,
  () => false,
);
const repoTest = testUnless(test, online ? needsCommand("tar") : "needs the npm registry");

const scale = Number(process.env["SOAK_SCALE"] ?? "1");
const specs = (await readdir(fixtures)).sort();
for (const spec of specs.slice(0, Math.max(1, Math.round(specs.length * scale)))) {
  const manager = await managerOf(join(fixtures, spec));
  repoTest(`${spec} with ${manager} is what is made by hand, and a second build does nothing`, async () => {
    const [bin, work] = [tempDir("bin-"), tempDir()];
    const checkout = await publish(spec, work);
    const env = await environmentFor(manager, bin);
    const [ours, hand] = [await checkout(join(work, "a/site")), await checkout(join(work, "b/site"))];
    const program = litproIn(await readFile(join(ours, "package.json"), "utf8"));

    const first = await runScript("build", [ours], { env, expect: 0, timeout: 300_000 });
    const compiled = new RegExp(`litpro +ok .* ${program} \\d+\\.\\d+\\.\\d+: 2 saved`);
    assert.match(first.stdout, new RegExp(`install +ok .* ${managers[manager].install.join(" ")}\n`));
    assert.match(first.stdout, program === undefined ? /^skipped: .*\blitpro\b/m : compiled);
    const second = await runScript("build", [ours], { env, expect: 0, timeout: 300_000 });
    assert.match(second.stdout, /install +skipped +nothing changed since the last install/);
    if (program !== undefined) assert.match(second.stdout, /: 0 saved, 2 unchanged/);

    await runCommand([...managers[manager].install], {
      cwd: hand,
      env,
      expect: 0,
      timeout: 300_000,
    });
    if (program !== undefined) {
      const file = program === "litpro" ? "litpro.js" : "index.js";
      const alone = existsSync(join(hand, ".pnp.cjs"))
        ? ["yarn", "run", program]
        : ["node", `node_modules/${program}/${file}`];
      await runCommand(alone, { cwd: hand, env, expect: 0, timeout: 60_000 });
    }
    // managers keep times and whole paths in files of their own, litpro its outputs in the order of their writes
    const own = [".bin", ".deno", ".modules.yaml", ".package-lock.json", ".pnpm-workspace-state*"];
    const yarns = [".pnp.*", ".yarn", ".yarn-integrity", ".yarn-state.yml"];
    const excluded = [...own, ...yarns, ".checksum", ".git", "logs.txt"].map((name) => `--exclude=${name}`);
    await runCommand(["diff", "-rq", "--no-dereference", ...excluded, ours, hand], { expect: 0 });
    assert.is(await git(ours, "diff", "--name-only"), "", "no committed file was changed");
    // hundreds of thousands of files in all are too many to be removed at the end
    await rm(work, { recursive: true });
  });
}

// Without the network: of Python's packages those that every venv brings.
const python = {
  "hours/__init__.py": "def clock(hours):\n    return f'{hours % 24:02}:10'\n",
  "test_hours.py":
    "import unittest\nfrom hours import clock\n\nclass Hours(unittest.TestCase):\n" +
    "    def test_midnight(self):\n        self.assertEqual(clock(24), '00:10')\n\nunittest.main()\n",
  ".gitignore": "venv/\nbuild/\n*.egg-info/\n__pycache__/\nlogs.txt*\n",
};
const lacksVenv = async () => {
  const { code } = await runCommand(["python3", "-c", "import ensurepip, venv"]).catch(() => ({ code: 1 }));
  return code === 0 ? undefined : "needs python3-venv";
};
const venvTest = testUnless(test, await lacksVenv());

venvTest("a Python repo with a build.yml gets its venv, and the second build has it already", async () => {
  const repo = await makeRepo({
    files: {
      ...python,
      "build.yml":
        "stages: [pull, venv, test]\ncommands:\n" +
        "  venv: test -e venv/bin/pip || python3 -m venv venv; venv/bin/pip list\n  test: venv/bin/python test_hours.py\n",
    },
  });
  const checkout = await repo.checkout(join(tempDir(), "site"));
  for (const round of [1, 2]) {
    const { stdout, stderr } = await runScript("build", [checkout], { timeout: 300_000, expect: 0 });
    assert.match(stdout, /venv +ok/, String(round));
    assert.match(stderr, /test \| OK/);
  }
  await repo.push({ "hours/__init__.py": "def clock(hours):\n    return f'{hours - 1}:10'\n" });
  const { stderr } = await runScript("build", [checkout], { timeout: 300_000, expect: 1 });
  assert.match(stderr, /test \| AssertionError: '23:10' != '00:10'/);
});

test("a Python repo without a build.yml is green, and is told that nothing was built, twice", async () => {
  const repo = await makeRepo({ files: { ...python, "requirements.txt": "flask==3.0.0\n", Makefile: "all:\n" } });
  const checkout = await repo.checkout(join(tempDir(), "site"));
  for (const _ of [1, 2]) {
    const { stdout } = await runScript("build", [checkout], { expect: 0 });
    assert.match(stdout, /nothing was built: Makefile and requirements\.txt are here; name a command in build\.yml/);
  }
});

test.after(() => rm(home, { recursive: true }));

test.run();
