import { readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readPlain } from "../../../lib/config/yaml-plain.ts";
import { parseTree } from "../../../lib/config/yaml.ts";

const root = new URL("../../../", import.meta.url);
const examples = [
  ...readdirSync(new URL("templates/", root))
    .filter((name) => name.endsWith(".yml"))
    .map((name) => `templates/${name}`),
  "launchify.example.yml",
].map((name) => ({ name, text: readFileSync(new URL(name, root), "utf8") }));

const ordinary = `# a server
listen: 127.0.0.1:3420   # here
state: /var/lib/boatyard
keep: 50
keep_for: 30d
status: { token_file: /etc/status.token }
repos:
  # the site
  me/site:
    dir: ~/site
    secret_file:
      - one secret
      - "two: secrets"
    refs: [main, 'release/*']
    insecure: true
    then:
    - server-update site && echo "done, [well]"
    on: { push: build, release: release }
  me/other: { dir: /srv/other, poll: 15 minutes 3 seconds, cancel: false }
`;

/** The package's tree; undefined where it finds a mistake. */
const byPackage = (text: string) => parseTree(text, "x.yml").catch(() => undefined);

/** What both readers say must be the same, wherever the plain one says anything; returns whether it did. */
async function compare(text: string): Promise<boolean> {
  const plain = readPlain(text);
  if (plain !== undefined) assert.equal(plain, await byPackage(text), text);
  return plain !== undefined;
}

test("an ordinary configuration is read without the package, to the same tree with the same places", async () => {
  assert.ok(await compare(ordinary));
});

test("our own templates are read as the package reads them", async () => {
  for (const { name, text } of examples)
    assert.ok(await compare(text), `${name} is not plain any more`);
});

test("what is not plain, or wrong, is left to the package", () => {
  for (const text of [
    "",
    "a: &x 1",
    "a: *x",
    "a: !!str 1",
    "a: |\n  text",
    "a: >-\n  text",
    "a: one\n  two",
    "a: 'it''s'",
    'a: "\\n"',
    "a: 1.10",
    "a: 0x1f",
    "a: 010",
    "a: 1e3",
    "a: .5",
    "a: .inf",
    "a: ~",
    "a: Null",
    "a: True",
    "a:",
    "a: {b}",
    "a: [b: c]",
    "a: [b,c]",
    "a: {\n b: c }",
    "a: [b\n]",
    "a: b: c",
    "a: b #c\n  d",
    "? a\n: b",
    "a: 1\na: 2",
    "1: a\n0x1: b",
    "null: a\n~: b",
    "<<: { a: b }",
    "---\na: b",
    "%YAML 1.1\n---\na: yes",
    "a: b\n...\n",
    "\ta: b",
    "a:\tb",
    "a: b\r\n",
    "a: ä",
    " a: b",
    "a:\n  b: c\n d: e",
    "a:\n  - b\n - c",
    "- a\n- b",
    "a: - b",
    "a:\n  - b: c",
    "a:\n  - - b",
    "a: @b",
    "a: `b`",
    "a: %b",
    "a: b# c: d",
    '{"a": "b"}',
  ])
    assert.is(readPlain(text), undefined, text);
});

test("no text of whatever kind is read in another way than by the package", async () => {
  let seed = 20_261_121;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const scraps = [
    ..." \n\n::--#,[]{}'\"\\&*!|>%@`?~.+0123e_xab/=$…é\u00a0\u2028\ufeff",
    ": ",
    "- ",
    "  ",
    "\n  ",
    "\n    ",
    "\n- ",
  ];
  const words = [
    "true",
    "null",
    "No",
    "0o7",
    "0x1F",
    "1e3",
    ".5",
    "1.10",
    "30d",
    "a b",
    "<<",
    "---",
    "...",
  ];
  const texts = [ordinary, ...examples.map(({ text }) => text.slice(0, 1500))];
  let read = 0;
  for (let round = 0; round < 3000; round++) {
    let text = texts[round % texts.length] as string;
    // a few lines are enough, and quick
    const lines = text.split("\n");
    const from = random(lines.length);
    const margin = /^ */.exec(lines[from] ?? "")?.[0].length ?? 0;
    text = lines
      .slice(from, from + 1 + random(6))
      .map((line) => line.slice(Math.min(margin, /^ */.exec(line)?.[0].length ?? 0)))
      .join("\n");
    for (let change = random(4); change > 0; change--) {
      const at = random(text.length + 1);
      const scrap =
        (random(4) > 0 ? scraps[random(scraps.length)] : words[random(words.length)]) ?? "";
      text = text.slice(0, at) + scrap + text.slice(at + random(3));
    }
    if (await compare(text)) read += 1;
  }
  assert.ok(read > 300, `only ${read} of 3000 were plain`);
});

test.run();
