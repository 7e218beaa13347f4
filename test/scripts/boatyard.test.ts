// The one command in front of all scripts, and the words that every script knows.
import { copyFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runCommand, runScript, scriptArgv, startScript } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { freePort } from "../helpers/ports.ts";
import { tempDir } from "../helpers/tmp.ts";
import { scriptNames } from "../../tools/scripts.ts";

interface Description {
  name: string;
  summary: string;
  commands: Description[];
  programs: Record<string, string>;
  flags: { name: string }[];
}

const names = await scriptNames();
const stdoutOf = async (name: string, ...args: string[]) => (await runScript(name, args, { expect: 0 })).stdout;
const described = new Map(
  await Promise.all(
    names.map(async (name) => [name, JSON.parse(await stdoutOf(name, "help", "--json")) as Description] as const),
  ),
);

test("help, help COMMAND and -V work in every script", async () => {
  const tried = names.map(async (name) => {
    const { summary = "", commands = [] } = described.get(name) ?? {};
    const version = await stdoutOf(name, "-V");
    assert.ok(version.startsWith(`${name} 0.`), version);
    // what is told of a subcommand goes through the same words as what is told of all
    const [shown = { name, summary }] = commands;
    const text = await stdoutOf(name, "help", ...shown.name.split(" ").slice(1));
    assert.ok(text.startsWith(`${shown.name}: ${shown.summary}\n`), text);
  });
  await Promise.all(tried);
});

test("docs/json.md has a section for every command, but for those that print nothing with --json", async () => {
  const page = await readFile(join(root, "docs/json.md"), "utf8");
  const titles = [...page.matchAll(/^## (.*)$/gm)].map(([, title = ""]) => title).join(" ");
  const silent = ["boatyard", "hook-server log"];
  const commands = [...described.values()].flatMap((each) => [each, ...each.commands]);
  for (const { name } of commands) if (!silent.includes(name)) assert.match(titles, new RegExp(`\`${name}[\` ]`), name);
});

test("help tells of a command below another one, and names the nearest of one that there is not", async () => {
  assert.match(await stdoutOf("setup", "help", "bus", "add"), /^setup bus add: /);
  assert.is(await stdoutOf("boatyard", "help", "setup", "bus", "add"), await stdoutOf("setup", "bus", "add", "--help"));
  const { stderr } = await runScript("setup", ["help", "serevr"], { expect: 2 });
  assert.match(stderr, 'unexpected operand "serevr" (did you mean "server"?); see setup --help');
});

test("-V tells the version also where --version is a flag of the command's own", async () => {
  assert.is(await stdoutOf("release", "pack", "-V"), await stdoutOf("release", "--version"));
  assert.match(await stdoutOf("release", "pack", "--help"), /^ {2}-V /m);
});

test("a folder that is called help is an operand behind --, and with flags", async () => {
  const { stderr } = await runScript("build", ["--", "help"], { expect: 2, cwd: tempDir() });
  assert.match(stderr, "help");
  const flagged = await runScript("logs", ["help", "--list"], { cwd: tempDir() });
  assert.not.match(flagged.stdout, "Usage");
});

test("boatyard lists every script with its own summary", async () => {
  const programs = described.get("boatyard")?.programs ?? {};
  const others = names.filter((name) => name !== "boatyard");
  assert.equal(Object.keys(programs).sort(), [...others, "demo"].sort());
  for (const name of others) assert.is(programs[name], described.get(name)?.summary, name);
  assert.is(await stdoutOf("boatyard"), await stdoutOf("boatyard", "--help"));
});

test("boatyard NAME is NAME: its words, its output, its exit code, its own name in errors", async () => {
  const cwd = tempDir();
  for (const args of [
    ["build", "--version"],
    ["release", "help", "pack"],
    ["logs", "--nope"],
    ["downloads", "nowhere"],
  ]) {
    const [name = "", ...rest] = args;
    const wanted = await runScript(name, rest, { cwd });
    assert.equal(await runScript("boatyard", args, { cwd }), wanted, args.join(" "));
  }
  assert.is(await stdoutOf("boatyard", "help", "build"), await stdoutOf("build", "--help"));
});

test("a server that boatyard starts takes signals itself and ends by them", async () => {
  const cwd = tempDir();
  const address = `127.0.0.1:${await freePort()}`;
  const server = startScript(
    "boatyard",
    ["slave-server", "--insecure", "--listen", address, "--repos", cwd, "--base", "file:///x"],
    {
      env: { HOME: cwd },
    },
  );
  await server.until(/slave-server listens on/);
  assert.is((await server.stop()).code, 0);
});

test("an unknown command is refused with the nearest known one, and a missing file is named", async () => {
  const wrong = await runScript("boatyard", ["bild"], { expect: 2 });
  assert.match(wrong.stderr, 'there is no command "bild" (did you mean "build"?)');
  const help = await runScript("boatyard", ["help", "bild"], { expect: 2 });
  assert.is(help.stderr, wrong.stderr);
  const flags = await runScript("boatyard", ["bild", "x", "--only", "test"], { expect: 2 });
  assert.is(flags.stderr, wrong.stderr);
  const more = await runScript("boatyard", ["help", "release", "pack", "x"], { expect: 2 });
  assert.match(more.stderr, /unexpected operand "x"; see release pack --help/);
  const [file = ""] = scriptArgv("boatyard").slice(-1);
  if (!file.endsWith(".mjs")) return;
  const alone = join(tempDir(), "boatyard.mjs");
  await copyFile(file, alone);
  const argv = [...current.argv(alone), "build", "."];
  const { stderr } = await runCommand(argv, { expect: 2, cwd: process.cwd() });
  assert.match(stderr, "build.mjs is not there; copy it beside");
  const demo = await runCommand([...current.argv(alone), "demo"], { expect: 2 });
  assert.match(demo.stderr, "demo.mjs is not there; in a checkout it is npm run demo");
});

test.run();
