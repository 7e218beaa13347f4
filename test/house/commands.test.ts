// Every command line of ours in the documents is one that the script would take: a known subcommand, known flags.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runScript } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { scriptNames } from "../../tools/scripts.ts";

const scripts = new Set(await scriptNames());
const pages = ["README.md", ...(await readdir(join(root, "docs"))).map((file) => `docs/${file}`)];

/** The words of a shell line, as far as documents use the shell; comments are left out. */
export function wordsOf(line: string): string[] {
  const words = line.match(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g) ?? [];
  const comment = words.findIndex((word) => word.startsWith("#"));
  return (comment < 0 ? words : words.slice(0, comment)).map((word) => word.replace(/["']/g, ""));
}

/** Each call of a script of ours: its name and what follows, up to a pipe or the next command. */
function callsIn(text: string): string[][] {
  const calls: string[][] = [];
  for (const [, block = ""] of text.matchAll(/^```(?:sh|console)[^\n]*\n([\s\S]*?)^```/gm)) {
    for (const line of block.replaceAll(/\\\n/g, " ").split("\n")) {
      let current: string[] | undefined;
      for (const word of wordsOf(line.replace(/^\$ /, ""))) {
        if (/^(?:\||\|\||&&|;|&|>|>>|2>&1|\(|\))$/.test(word)) current = undefined;
        else if (current) current.push(word);
        else {
          const name = /(?:^|\/)([a-z-]+)(?:\.mjs|\.ts)?$/.exec(word)?.[1] ?? "";
          const called = scripts.has(name) && (word === name || /\.(?:mjs|ts)$/.test(word));
          const copied = /^\s*(?:\$ )?(?:scp|cp|ln|chmod|install|which|type) /.test(line);
          if (called && !copied) calls.push((current = [name]));
          else if (!/^(?:sudo|node|deno|run|-A|env|time|exec|[A-Z_]+=\S*)$/.test(word)) current = [];
        }
      }
    }
  }
  return calls;
}

const helps = new Map<string, Promise<string>>();
function help(...words: string[]): Promise<string> {
  const key = words.join(" ");
  const [name = "", ...rest] = words;
  const text = helps.get(key) ?? runScript(name, [...rest, "--help"], { expect: 0 }).then(({ stdout }) => stdout);
  helps.set(key, text);
  return text;
}

for (const page of pages.filter((name) => name.endsWith(".md")).sort()) {
  const calls = callsIn(await readFile(join(root, page), "utf8"));
  if (calls.length === 0) continue;
  test(`the ${calls.length} commands in ${page} are ones that the scripts take`, async () => {
    for (const [name = "", ...words] of calls) {
      let [text, depth] = [await help(name), 0];
      for (; ; depth += 1) {
        const subcommands = /^Commands\n((?: {2}.*\n)+)/m.exec(text)?.[1] ?? "";
        const path = [name, ...words.slice(0, depth + 1)].join(" ");
        if (words[depth] === undefined || !subcommands.includes(`  ${path} `)) break;
        text = await help(name, ...words.slice(0, depth + 1));
      }
      for (const word of words) {
        const flag = /^(--?[a-z][a-z-]*)/.exec(word)?.[1];
        if (flag === undefined) continue;
        const known = new RegExp(`^ {2}(?:-\\w, )?${flag}(?: |$)|^ {2}${flag}, `, "m");
        assert.match(text, known, `${page}: ${[name, ...words].join(" ")}: ${flag}`);
      }
    }
  });
}

testUnless(test, current.kind === "deno" && "Deno warns in its own way")(
  "a warning of Node that a user can do nothing about is not shown, others are",
  async () => {
    const warn = `const { write } = process.stdout;
      process.stdout.write = function (...args) {
        process.emitWarning("an API of Node's", "ExperimentalWarning");
        process.emitWarning("a setting of the user's");
        return write.apply(this, args);
      };`;
    const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(warn)}` };
    const { stderr } = await runScript("logs", ["--help"], { env, expect: 0 });
    assert.match(stderr, /a setting of the user's/);
    assert.not.match(stderr, /an API of Node's/);
  },
);

test.run();
