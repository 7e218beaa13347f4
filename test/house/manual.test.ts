// The manual's pages are made from what the scripts declare, and read by what reads manuals.
import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { describeScripts } from "../../tools/ship/describe.ts";
import { manualOf } from "../../tools/ship/manual.ts";
import { runCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const dist = join(root, "dist");
const scripts = await describeScripts(existsSync(join(dist, "logs.mjs")) ? dist : undefined);
const manual = await manualOf(scripts, new Date("2026-11-22T10:00:00Z"));
const folder = tempDir("manual-");
const written: string[] = [];
for (const [name, page] of manual) {
  if (!("text" in page)) continue;
  written.push(join(folder, name));
  await writeFile(join(folder, name), page.text);
}
const lacks = (program: string) =>
  !(process.env["PATH"] ?? "").split(":").some((each) => existsSync(join(each, program))) &&
  `needs ${program} (apt install ${program})`;

testUnless(test, lacks("mandoc"))("mandoc finds no fault with any page", async () => {
  const { stdout } = await runCommand(["mandoc", "-T", "lint", ...written]);
  // that a page of ours is not installed here is no fault of the one that names it
  const faults = stdout.split("\n").filter((line) => line !== "" && !/referenced manual not found/.test(line));
  assert.equal(faults, []);
});

testUnless(test, lacks("mandoc"))("every flag, key and example of --help is on the page as it is typed", async () => {
  const read = async (name: string) =>
    (
      await runCommand(["mandoc", "-T", "utf8", "-O", "width=200", join(folder, name)], {
        expect: 0,
      })
    ).stdout.replaceAll(/.\u0008/g, "");
  for (const command of scripts.flatMap((script) => [script, ...script.commands])) {
    const { name, flags, operands, examples, exits } = command;
    const page = await read(`${name === "boatyard" ? name : `boatyard-${name.replace(" ", "-")}`}.1`);
    const text = page.replace(/\s+/g, " ");
    const typed = [
      ...flags.map((flag) => (flag.name === "V" ? "-V" : `--${flag.name}`)),
      ...examples.map(([line]) => line),
    ];
    const told = [...[...flags, ...operands].map(({ help }) => help), ...Object.values(exits)];
    for (const words of [...typed, ...told.map((words) => words.slice(1))])
      assert.ok(text.includes(words), `${words} in\n${page}`);
  }
  const hooks = await read("hooks.yml.5");
  assert.ok(hooks.includes("repos.*.secret_file"), hooks);
  assert.ok(hooks.includes("secret_file: /etc/boatyard/site.secret"), hooks);
  assert.match(await read("manifest.txt.5"), "sha256");
});

test("pages that name another one name one that there is, and each script has its own", () => {
  for (const [name, page] of manual) {
    if ("link" in page) assert.ok(manual.has(page.link), name);
    else
      for (const [, target, number] of page.text.matchAll(/^\.Xr "([^"]+)" (\d)/gm))
        assert.ok(manual.has(`${target?.replaceAll("\\-", "-")}.${number}`), `${name} names ${target}(${number})`);
  }
  for (const { name } of scripts) assert.ok(manual.has(`${name}.1`) || name === "setup", `${name} has a page`);
  assert.ok(manual.size > 45, `${manual.size} pages`);
});

test("every unit names pages that there are", async () => {
  for (const name of await readdir(join(root, "templates"))) {
    if (!/\.(?:service|socket|timer)$/.test(name)) continue;
    const unit = await readFile(join(root, "templates", name), "utf8");
    const documentation = /^Documentation=(.+)$/m.exec(unit)?.[1] ?? "";
    const pages = [...documentation.matchAll(/man:(\S+)\((\d)\)/g)];
    assert.ok(pages.length > 0, name);
    for (const [whole, page, number] of pages) assert.ok(manual.has(`${page}.${number}`), `${name}: ${whole}`);
  }
});

test.run();
