// TAB in bash, zsh and fish, in the shells themselves: flags, commands, and what is looked up at that moment.
import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { completionOf } from "../../tools/ship/completion.ts";
import { type Description, describeScripts } from "../../tools/ship/describe.ts";
import { prepare } from "../helpers/prepare.ts";
import { runCommand, runScript, scriptArgv } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const dist = join(root, "dist");
const scripts = await describeScripts(existsSync(join(dist, "logs.mjs")) ? dist : undefined);
const folder = tempDir("completion-");
const site = join(folder, "site");

prepare(test, async () => {
  for (const name of ["bash", "zsh", "fish", "bin", "site"]) await mkdir(join(folder, name));
  for (const script of scripts) {
    const { bash, zsh, fish } = completionOf(script, scripts);
    await writeFile(join(folder, "bash", script.name), bash);
    await writeFile(join(folder, "zsh", `_boatyard-${script.name}`), zsh);
    await writeFile(join(folder, "fish", `${script.name}.fish`), fish);
    const words = scriptArgv(script.name).map((word) => `'${word}'`);
    await writeFile(join(folder, "bin", script.name), `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`);
    await chmod(join(folder, "bin", script.name), 0o755);
  }
  // a checkout with runs, stages and targets
  await writeFile(join(site, "build.yml"), "stages: [hello, world]\ncommands: { hello: 'true', world: 'true' }\n");
  await writeFile(join(site, "uploads.yml"), "to: { web: { rsync: /tmp/x/ }, wide: { rsync: /tmp/y/ } }\n");
  await runScript("build", [site], { expect: 0 });
});

const env = { PATH: `${join(folder, "bin")}:${process.env["PATH"]}`, HOME: folder };
const runId = async () => /^\S+ (\S+)/.exec(await readFile(join(site, "logs.txt"), "utf8"))?.[1] ?? "";

type Ask = (line: string) => Promise<string[]>;
const linesOf = (text: string) => text.split("\n").filter((line) => line !== "");

const inBash: Ask = async (line) => {
  const words = line.split(" ");
  const [name = ""] = words;
  const text = `compopt() { :; }; . '${join(folder, "bash", name)}'
    COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}) COMP_CWORD=${words.length - 1}
    COMP_LINE='${line}' COMP_POINT=${line.length}
    spec=$(complete -p ${name}); [[ $spec =~ -F\\ ([^ ]+) ]]; "\${BASH_REMATCH[1]}" ${name}
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = await runCommand(["bash", "--norc", "-c", text], { env, cwd: site });
  assert.is(stderr, "");
  return linesOf(stdout);
};

const inFish: Ask = async (line) => {
  const text = `set -p fish_complete_path '${join(folder, "fish")}'; complete --do-complete '${line}'`;
  const { stdout, stderr } = await runCommand(["fish", "--no-config", "-c", text], {
    env,
    cwd: site,
  });
  assert.is(stderr, "");
  return linesOf(stdout).map((each) => each.split("\t")[0] ?? "");
};

/** Types the line and TAB in an interactive zsh, and has compadd tell what it was given. */
const zshCapture = `emulate -L zsh; zmodload zsh/zpty; export CAPFILE=$1/capture; : > $CAPFILE
zpty z "ZDOTDIR=/nonexistent zsh -f -i"
zpty -w z "fpath=(\${(q)1}/zsh \\$fpath); autoload -Uz compinit; compinit -u -D; unset zle_bracketed_paste; PS1=; LISTMAX=100000"
zpty -w z 'compadd() { local -a __h; builtin compadd -A __h "$@"; local x; for x in $__h; do print -r -- "CAND $x" >> $CAPFILE; done; builtin compadd "$@" }'
zpty -w z "CAPFILE=$CAPFILE; bindkey '^X^X' _bye; _bye() { print -r -- DONE >> $CAPFILE; exit }; zle -N _bye; print -r -- RE''ADY"
local l i; for i in {1..600}; do zpty -rt z l && [[ $l == *READY* ]] && break; sleep 0.02; done
zpty -n -w z "$2"$'\\t'$'\\C-X\\C-X'; for i in {1..600}; do zpty -rt z l; grep -qx DONE $CAPFILE && break; sleep 0.02; done
sed -n 's/^CAND //p' $CAPFILE | sort -u; zpty -d z
`;
const inZsh: Ask = async (line) => {
  await writeFile(join(folder, "capture.zsh"), zshCapture);
  const argv = ["zsh", "-f", join(folder, "capture.zsh"), folder, line];
  const { stdout } = await runCommand(argv, { env, cwd: site });
  return linesOf(stdout).map((each) => each.split(":")[0] ?? "");
};

const has = (program: string) => (process.env["PATH"] ?? "").split(":").some((each) => existsSync(join(each, program)));
const shells: [string, Ask][] = [
  ["bash", inBash],
  ["fish", inFish],
  ["zsh", inZsh],
];
for (const [shell, ask] of shells) {
  testUnless(test, !has(shell) && `needs ${shell} (apt install ${shell})`)(
    `TAB in ${shell}: flags, commands, fixed words, and runs, stages and targets as they are now`,
    async () => {
      const offers = async (line: string, wanted: readonly string[], not: readonly string[] = []) => {
        const found = await ask(line);
        for (const word of wanted)
          assert.ok(found.includes(word), `${line}<TAB> offers ${word}; got ${found.join(" ")}`);
        for (const word of not) assert.not.ok(found.includes(word), `${line}<TAB> offers ${word}; it must not`);
      };
      await offers("logs --st", ["--stage"]);
      await offers("release ", ["pack", "keygen", "help"]);
      await offers("release pack --pl", ["--platform"], ["--tag"]);
      await offers("boatyard ", ["build", "demo", "setup"]);
      await offers("boatyard setup ", ["repo", "check"]);
      await offers("hook-server list --only s", ["succeeded", "superseded"]);
      await offers("logs --run ", [await runId()]);
      await offers("boatyard build --from ", ["hello", "world"], ["pull"]);
      await offers("uploads --to w", ["web", "wide"]);
      await offers("setup remove ", ["repo", "slave"]);
    },
  );
}

test("every flag of every command is offered by all three shells", () => {
  const withBelow = (command: Description): Description[] => [command, ...command.commands.flatMap(withBelow)];
  for (const script of scripts) {
    const { bash, zsh, fish } = completionOf(script, scripts);
    for (const { name, flags } of withBelow(script)) {
      const start = `\n_boatyard_${name.replace(/[^a-z0-9]+/g, "_")}() {\n`;
      const functions = [bash, zsh].map((text) => text.split(start)[1]?.split("\n}\n")[0] ?? "");
      const words = name.split(" ").map((word, at) => `test "$t[${at + 1}]" = ${word}`);
      const lines = fish.split("\n").filter((line) => words.slice(1).every((word) => line.includes(word)));
      for (const { name: flag } of flags.filter(({ name }) => name.length > 1)) {
        for (const text of functions) assert.match(text, new RegExp(`--${flag}\\b`), `${name} --${flag}`);
        assert.match(lines.join("\n"), new RegExp(` -l ${flag} `), `${name} --${flag} in fish`);
      }
    }
  }
});

test("what is looked up tells nothing and breaks nothing where there is nothing", async () => {
  const { stdout, stderr } = await runScript("logs", ["__complete", "--run", "/nowhere"], {
    expect: 0,
  });
  assert.is(stdout + stderr, "");
  await runScript("hook-server", ["show", "__complete", "0", "--state", "/nowhere"], { expect: 0 });
});

testUnless(test, !has("shellcheck") && "needs shellcheck (apt install shellcheck)")(
  "shellcheck finds no fault with the files for bash",
  async () => {
    const files = scripts.map(({ name }) => join(folder, "bash", name));
    const { stdout } = await runCommand(["shellcheck", "-s", "bash", "-S", "warning", ...files]);
    assert.is(stdout, "");
  },
);

test.run();
