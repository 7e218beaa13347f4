import { test } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../../../lib/core/errors.ts";
import { type Infer, parseConfig, readConfig, y } from "../../../lib/config/yaml.ts";

const schema = y.object({
  listen: y.optional(y.string(), "127.0.0.1:3420"),
  concurrency: y.optional(y.number({ min: 1, max: 64 }), 2),
  version: y.optional(y.string()),
  mode: y.optional(y.choice(["fast", "safe"])),
  repos: y.record(
    y.object({
      user: y.optional(y.string()),
      secret_file: y.optional(y.oneOrMore(y.string())),
      poll: y.optional(y.either([y.duration(), y.just(false)], "a duration or false"), 900_000),
      on: y.optional(y.object({ push: y.string() })),
    }),
    (name) => (name.includes("/") ? undefined : `"${name}" is no owner/name`),
  ),
});

const good = `# a comment
listen: 0.0.0.0:80
version: 1.10
repos:
  a/b:
    user: joe
    secret_file: /etc/secret
    poll: false
  c/d: { secret_file: [one, two], poll: 15 minutes 3 seconds }
`;

async function problems(text: string): Promise<string[]> {
  try {
    await parseConfig(text, "hooks.yml", schema);
  } catch (error) {
    assert.instance(error, UsageError);
    return (error as Error).message.split("\n");
  }
  return [];
}

test("a good file gives typed values, with defaults for what it leaves out", async () => {
  const { value } = await parseConfig(good, "hooks.yml", schema);
  const typed: Infer<typeof schema> = value;
  assert.is(typed.listen, "0.0.0.0:80");
  assert.is(typed.version, "1.10");
  assert.is(typed.concurrency, 2);
  assert.equal(typed.repos["a/b"]?.secret_file, ["/etc/secret"]);
  assert.is(typed.repos["a/b"]?.poll, false);
  assert.is(typed.repos["c/d"]?.poll, 903_000);
});

test("all forms of YAML are taken, and text stays as it was written", async () => {
  const anything = y.record(y.oneOrMore(y.either([y.boolean(), y.string()], "a word")));
  const rows: [string, (string | boolean)[]][] = [
    ["a: b c   # a comment", ["b c"]],
    ["a: 'it''s'", ["it's"]],
    ['a: "\\u00e4: #"', ["ä: #"]],
    ["a: |\n  two\n  lines\n", ["two\nlines\n"]],
    ["a: two\n  lines", ["two lines"]],
    ["a: 1.10", ["1.10"]],
    ["a: 010", ["010"]],
    ["a: 1e3", ["1e3"]],
    ["a: [yes, no, true]", ["yes", "no", true]],
    ["a: &x b\nc: *x", ["b", "b"]],
    ["a: [b,\n  'c, d']\n", ["b", "c, d"]],
    ["a:\n- b\n- c", ["b", "c"]],
    ["? a\n: b", ["b"]],
    ["%YAML 1.2\n---\na: b\n...\n", ["b"]],
    ["\ufeffa: b\r\n", ["b"]],
    ['{"a": "b"}', ["b"]],
  ];
  for (const [text, expected] of rows) {
    const { value } = await parseConfig(text, "x.yml", anything);
    assert.equal(Object.values(value).flat(), expected, text);
  }
});

test("every mistake is named with file, line, column and what is allowed", async () => {
  assert.equal(await problems("lisen: x\nconcurrency: 900\nmode: fats\nrepos:\n  a/b:\n    pol: 5m\n    poll: 5x\n"), [
    'hooks.yml:1:1: unknown key "lisen" (did you mean "listen"?); allowed are listen, concurrency, version, mode, repos',
    'hooks.yml:2:14: expected a whole number from 1 to 64, got "900"',
    'hooks.yml:3:7: expected one of fast, safe, got "fats" (did you mean "fast"?)',
    'hooks.yml:6:5: unknown key "pol" (did you mean "poll"?); allowed are user, secret_file, poll, on',
    'hooks.yml:7:11: expected a duration or false, got "5x"',
  ]);
});

test("a missing key, a bad map key and a wrong kind are named", async () => {
  assert.equal(await problems(""), [
    'hooks.yml:1:1: "repos" is missing; give it a map, each value a map with user, secret_file, poll, on',
  ]);
  assert.equal(await problems("repos: { site: {} }"), ['hooks.yml:1:10: "site" is no owner/name']);
  assert.match((await problems("repos: [a]"))[0] ?? "", /^hooks.yml:1:8: expected a map/);
  assert.match((await problems("repos: { a/b: { on: 5 } }"))[0] ?? "", /^hooks.yml:1:21: expected/);
});

test("broken YAML, doubled keys and bombs of aliases are errors with their place", async () => {
  assert.match((await problems("repos: {a/b: {}\nx"))[0] ?? "", /^hooks.yml:\d+:\d+: /);
  assert.match((await problems("repos: {}\nrepos: {}"))[0] ?? "", /^hooks.yml:2:1: .*unique/);
  const loop = await problems("repos: &r\n  a/b: *r\n");
  assert.match(loop[0] ?? "", /^hooks.yml:\d+:\d+: /);
});

test("keys like __proto__ and constructor are only keys", async () => {
  assert.match((await problems("constructor: 1\nrepos: {}"))[0] ?? "", /unknown key "constructor"/);
  assert.match((await problems("__proto__: 1\nrepos: {}"))[0] ?? "", /unknown key "__proto__"/);
});

test("places can be asked for later, for checks that come after reading", async () => {
  const config = await parseConfig(good, "hooks.yml", schema);
  assert.is(config.where(["repos", "a/b", "user"]), "hooks.yml:6:11");
  assert.is(config.where(["repos", "c/d", "secret_file", 1]), "hooks.yml:9:29");
  assert.is(config.where(["repos", "a/b"]), "hooks.yml:5:3");
});

test("a file that is not there, and a folder, are usage errors that say what to do", async () => {
  const said = (file: string) =>
    readConfig(file, schema).then(
      () => "it was read",
      (error: Error) => error.message,
    );
  assert.match(await said("/nonexistent/hooks.yml"), /hooks.yml: there is no such file; name/);
  assert.is(await said("/"), "/: it is a folder; name a file in it");
});

test.run();
