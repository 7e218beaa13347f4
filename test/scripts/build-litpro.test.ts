// The litpro stage, with the real litpro, against what litpro makes alone.
import { cp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { buildHere } from "../helpers/build.ts";
import { npmPackage } from "../helpers/npm-packages.ts";
import { type Files, git, makeRepo, writeFiles } from "../helpers/repos.ts";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

/** Several documents, sections in each other, a directive, commands of a plugin and of the repo's own. */
const program: Files = {
  "lprc.js": `module.exports = function (Folder, args) {
  args.file = ["main.md", "style.md"];
  require("litpro-shout")(Folder, args);
  Folder.sync("wrap", function (input, args) { return args[0] + input + args[1]; });
};
`,
  "main.md": `# Main

[count.js](#structure "save:")
[page](page.md "load:")
[loud.txt](#words "save:| shout | wrap <, >")

## Structure

    for (var i = 1; i <= 3; i++) {
        _"body"
    }

### Body

    console.log(i);

## Words

    hello
`,
  "style.md": `# Style

[css/site.css](#rules "save:")

## Rules

    body { color: _"colour"; }

### Colour

    teal
`,
  "src/page.md": `# Page

[index.html](#html "save:")

## HTML

    <title>_"title"</title>

### Title

    Hello, {world}
`,
  "node_modules/litpro-shout/index.js": `module.exports = function (Folder) {
  Folder.sync("shout", function (input) { return input.toUpperCase(); });
};
`,
};

const empty = { "lprc.js": "module.exports = function () {};\n" };

async function site(files: Files): Promise<string> {
  const dir = tempDir();
  await writeFiles(dir, files);
  return dir;
}

async function litpro(dir: string, expect: number): Promise<string> {
  const { code, text } = await buildHere(dir, ["--only", "litpro"]);
  assert.is(code, expect, text);
  return text;
}

/** Every file of a folder with its content; .checksum is parsed, as its order is that of the writes. */
async function contents(dir: string): Promise<Record<string, unknown>> {
  const names = (await readdir(dir, { recursive: true, withFileTypes: true })).filter((each) => each.isFile());
  const entries = names.map(async (each) => {
    const path = join(each.parentPath ?? each.path, each.name);
    const text = await readFile(path, "utf8");
    return [path.slice(dir.length), each.name === ".checksum" ? JSON.parse(text) : text] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

test("what is built is what litpro alone makes, byte for byte", async () => {
  const [ours, alone] = [await site(program), await site(program)];
  const text = await litpro(ours, 0);
  assert.match(text, /litpro +ok .* 4 saved, 0 unchanged/);
  const file = join(root, "node_modules/litpro/litpro.js");
  await runCommand(current.argv(file), { cwd: alone, expect: 0 });
  const made = await contents(join(ours, "build"));
  assert.equal(made, await contents(join(alone, "build")));
  assert.is(made["/loud.txt"], "<HELLO>\n");
  assert.match(String(made["/css/site.css"]), /teal/);
});

const cases = join(root, "test/fixtures/litpro");
for (const name of await readdir(cases)) {
  test(`what a document says is built: ${name}`, async () => {
    const dir = await site(empty);
    await cp(join(cases, name), dir, { recursive: true });
    const expected = await contents(join(dir, "expected"));
    assert.match(await litpro(dir, 0), new RegExp(`: ${Object.keys(expected).length} saved, 0 unch`));
    const { "/.checksum": _, ...built } = await contents(join(dir, "build"));
    assert.equal(built, expected);
  });
}

test("an output that was deleted, or put back by a checkout, is written again", async () => {
  const dir = await site(program);
  await litpro(dir, 0);
  const good = await contents(join(dir, "build"));
  await rm(join(dir, "build/index.html"));
  await writeFile(join(dir, "build/count.js"), "older\n");
  assert.match(await litpro(dir, 0), /2 saved, 2 unchanged/);
  assert.equal(await contents(join(dir, "build")), good);
});

test("an error in a built file is shown with the line of the document that it came from", async () => {
  const dir = await site({
    ...empty,
    "project.md":
      '# M\n\n[a.js](#code "save:")\n\n## Code\n\n    let n;\n    // x\n    _"body"\n\n### Body\n\n    n.x();\n',
    "src/other.md": "# O\n\n    n.x();\n    // y\n",
    "README.md": "# R\n\n    n.y();\n",
    "build.yml": "stages: [litpro, test]\ncommands: { test: node build/a.js }\n",
  });
  const { code, text } = await buildHere(dir);
  assert.is(code, 1, text);
  assert.match(text, /^test \| build\/a\.js:3 is project\.md:13$/m);
  const odd = `stages: [test]\ncommands: { test: 'echo ${"x".repeat(5000)}.js:1; echo project.md/x.js:1; exit 4' }\n`;
  await writeFile(join(dir, "build.yml"), odd);
  assert.match((await buildHere(dir)).text, /test +failed .* exit code 4/, "no name that is printed hides the reason");
  await writeFile(join(dir, "own.js"), "let n;\nn.x();\n");
  await writeFile(join(dir, "build.yml"), "stages: [litpro, test]\ncommands: { test: node own.js }\n");
  assert.not.match((await buildHere(dir)).text, / is \S+\.md:/, "what litpro did not write comes from no document");
});

const fine = '# T\n\n[x.txt](#t "save:")\n\n## T\n\n    hi\n';

const package_ = (name: string, version: string) => ({
  [`node_modules/${name}/package.json`]: JSON.stringify({ version, bin: { [name]: "./run.js" } }),
  [`node_modules/${name}/run.js`]: `console.log("${name} itself\\n## DONE");\n`,
});
const choices: [title: string, files: Files, words: RegExp][] = [
  ["the repo's own litpro", package_("litpro", "2.0.9"), /litpro +ok .* litpro 2\.0\.9: 0 saved/],
  [
    "the full package",
    { ...package_("litpro", "2.1.0"), ...package_("literate-programming", "1.1.0") },
    /literate-programming itself\n[^]*litpro +ok .* literate-programming 1\.1\.0: 0 saved/,
  ],
  [
    "the toolkit's, since literate-programming was another program before 1.0",
    { ...package_("literate-programming", "0.8.4"), "project.md": "# P\n" },
    /litpro +ok .* litpro 2\.1\.0: 0 saved/,
  ],
];
for (const [title, files, words] of choices) {
  test(`which litpro runs: ${title}`, async () => {
    assert.match(await litpro(await site({ ...empty, ...files }), 0), words);
  });
}

for (const version of ["0.11.2", "0.13.0"]) {
  const { modules, reason } = await npmPackage(`litpro@${version}`);
  testUnless(test, reason)(`litpro ${version} builds, is counted, and fails with its words`, async () => {
    const dir = await site({
      ...empty,
      "project.md": fine,
      "two.md": '# T\n\n[y.txt](#nope "save:")\n',
    });
    await symlink(modules ?? "", join(dir, "node_modules"));
    const ok = (counts: string) => new RegExp(`litpro +ok .* litpro ${version}: ${counts}`);
    assert.match(await litpro(dir, 0), ok("1 saved, 0 unchanged"));
    assert.match(await litpro(dir, 0), ok("0 saved, 1 unchanged"));
    await rm(join(dir, "build/x.txt"));
    assert.match(await litpro(dir, 0), ok("1 saved, 0 unchanged"));
    assert.is(await readFile(join(dir, "build/x.txt"), "utf8"), "hi\n");
    await writeFile(join(dir, "lprc.js"), 'module.exports = (Folder, args) => { args.file = ["two.md"]; };\n');
    assert.match(await litpro(dir, 1), new RegExp(`litpro ${version}: NOT SAVED: y.txt`));
    await writeFile(join(dir, "lprc.js"), 'require("litpro-nosuch");\n');
    assert.match(await litpro(dir, 1), /error:lprc.js: Cannot find module 'litpro-nosuch'/);
  });
}

const failing: [title: string, files: Files, words: RegExp][] = [
  ["a document that is missing", { "project.md": null }, /error:file not read:project.md/],
  [
    "a section that is missing",
    { "project.md": '# T\n\n[x.txt](#nowhere "save:")\n' },
    /NOT SAVED: x.txt .*NEED: nowhere/,
  ],
  [
    "a command that nobody defined",
    { "project.md": '# T\n\n[x.txt](#t "save:| nosuch")\n\n## T\n\n    hi\n' },
    /NOT SAVED: x.txt/,
  ],
  [
    "a reference to nothing",
    { "project.md": '# T\n\n[x.txt](#t "save:")\n\n## T\n\n    _"nope"\n' },
    /NOT SAVED: x.txt/,
  ],
  [
    "a build folder that is a file",
    { "project.md": '# T\n\n[x.txt](#t "save:")\n\n## T\n\n    hi\n', build: "file\n" },
    /error:/,
  ],
  ["an lprc.js with a syntax error", { "lprc.js": "module.exports = function ( {\n" }, /error:lprc.js: /],
  [
    "an lprc.js that throws",
    { "lprc.js": "module.exports = function () { null.x; };\n" },
    /error:lprc.js: Cannot read/,
  ],
  [
    "an lprc.js whose plugin is not installed",
    { "lprc.js": 'require("litpro-nosuch");\n' },
    /error:lprc.js: Cannot find module 'litpro-nosuch'/,
  ],
  ["an lprc.js that exports nothing", { "lprc.js": "\n" }, /error:lprc.js: it exports no function/],
  [
    "an lprc.js that ends litpro early",
    { "lprc.js": "module.exports = function () { process.reallyExit(0); };\n" },
    /without DONE/,
  ],
];
for (const [title, files, words] of failing) {
  test(`litpro fails the build with its own words: ${title}`, async () => {
    const base: Files = { "project.md": fine, "lprc.js": "module.exports = function () {};\n" };
    const wanted = Object.entries({ ...base, ...files }).filter(([, content]) => content !== null);
    const text = await litpro(await site(Object.fromEntries(wanted)), 1);
    assert.match(text, words);
  });
}

test("an lprc.js in a package of ES modules, which litpro passes over in silence, is an error with advice", async () => {
  const dir = await site({
    "package.json": '{ "type": "module" }\n',
    "lprc.js": "module.exports = function () {};\n",
    "project.md": fine,
  });
  assert.match(await litpro(dir, 1), /lprc.js must be CommonJS, but package.json says "type": "module"/);
});

test("without an lprc.js the stage says so and starts nothing", async () => {
  const text = await litpro(await site({ "project.md": fine }), 0);
  assert.match(text, /^skipped: .*\blitpro\b/m);
});

test("a pull that puts committed outputs back does not leave stale ones", async () => {
  const repo = await makeRepo({
    files: {
      "project.md": fine,
      "lprc.js": "module.exports = function () {};\n",
      "build/x.txt": "committed\n",
    },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  for (let run = 0; run < 2; run++) {
    const { code } = await buildHere(dir);
    assert.is(code, 0);
    assert.is((await readFile(join(dir, "build/x.txt"), "utf8")).trim(), "hi");
  }
  assert.match(await git(dir, "status", "--porcelain"), /build\/x.txt/);
});

test.run();
