import { test } from "uvu";
import * as assert from "uvu/assert";
import { addRepo, emptyHooks, hasRepo, namesBranch, readHooks, removeRepo } from "../../../lib/setup/hooks-file.ts";
import { template } from "../../../lib/files/templates.ts";
import { parseConfig, y } from "../../../lib/config/yaml.ts";

const entry = {
  repo: "ada/My.Notes",
  user: "my-notes",
  dir: "/home/my-notes/my-notes",
  secretFile: "/etc/boatyard/my-notes.secret",
  refs: ["main", "release/*"],
  afterwards: ["server-update notes"],
};
const repo = y.object({
  user: y.string(),
  dir: y.string(),
  secret_file: y.string(),
  refs: y.optional(y.oneOrMore(y.string())),
  on_success: y.optional(y.oneOrMore(y.string())),
});
const reposIn = async (text: string) => {
  const from = text.search(/^repos:/m);
  const { value } = await parseConfig(text.slice(from), "t", y.object({ repos: y.record(repo) }));
  return value.repos;
};

test("an empty hooks.yml keeps the template's settings and words, and has no repo", async () => {
  const text = emptyHooks(template("hooks.yml"));
  assert.match(text, /^concurrency: 2/m);
  assert.not.match(text, "jostylr");
  assert.equal(Object.keys(await reposIn(text)), []);
});

test("repos are added one by one, and YAML reads what was meant", async () => {
  const one = addRepo(emptyHooks(template("hooks.yml")), entry);
  const two = addRepo(one, {
    ...entry,
    repo: "ada/other",
    user: "other",
    refs: [],
    afterwards: [],
  });
  const repos = await reposIn(two);
  assert.equal(Object.keys(repos).sort(), ["ada/My.Notes", "ada/other"]);
  assert.equal(repos["ada/My.Notes"]?.refs, ["main", "release/*"]);
  assert.equal(repos["ada/My.Notes"]?.["on_success"], ["server-update notes"]);
  assert.is(repos["ada/other"]?.user, "other");
});

test("a user or a folder whose name YAML would take for something else is written as text", async () => {
  const text = addRepo("repos: {}\n", { ...entry, user: "true", dir: "/srv/a: b #c" });
  const { user, dir } = (await reposIn(text))[entry.repo] ?? {};
  assert.equal([user, dir], ["true", "/srv/a: b #c"]);
});

test("a repo that is there is left as it is, and so is everything around", () => {
  const text = "# mine\nrepos:\n    ada/x:   # by hand\n        user: x\n";
  assert.ok(hasRepo(text, "ada/x"));
  assert.not.ok(hasRepo(text, "da/x"));
  assert.is(addRepo(text, { ...entry, repo: "ada/x" }), text);
  const more = addRepo(text, entry);
  assert.match(more, "    ada/My.Notes:\n        user: my-notes\n");
  assert.ok(more.endsWith("    ada/x:   # by hand\n        user: x\n"));
});

test("what stands beside repos: stays when the first repo is added, and when the last goes", () => {
  const text = "repos: {} # ours\n";
  const added = addRepo(text, { ...entry, repo: "a/one" });
  assert.match(added, /^repos: # ours\n  a\/one:\n/);
  assert.is(removeRepo(added, "a/one"), text);
});

test("all repos are found, however they are written", async () => {
  const { repos, secretFiles } = await readHooks(`# user: nobody
repos:
  jostylr/site:      # user: comment
    user: site
    dir: /home/site/site
    secret_file: site.secret
    refs: main
  "ada/x": { dir: /x, user: "x", refs: [a, 'b/*'] }
  ada/y:
    dir: /y
`);
  assert.equal(
    repos.map(({ repo, user, refs }) => [repo, user, refs]),
    [
      ["jostylr/site", "site", ["main"]],
      ["ada/x", "x", ["a", "b/*"]],
      ["ada/y", undefined, undefined],
    ],
  );
  assert.equal(secretFiles, ["/etc/boatyard/site.secret"]);
});

test("a repo that is removed takes its lines, and nobody else's", () => {
  const text =
    "# mine\nrepos:\n  # x\n  ada/x:   # by hand\n    user: x\n\n    dir: /x\n\n  # y\n  ada/y:\n    user: y\n";
  const one = removeRepo(text, "ada/x");
  assert.is(one, "# mine\nrepos:\n  # x\n\n  # y\n  ada/y:\n    user: y\n");
  assert.is(removeRepo(one, "ada/x"), one);
  assert.match(removeRepo(one, "ada/y"), /^repos: \{\}$/m);
  const added = addRepo(emptyHooks(template("hooks.yml")), entry);
  assert.is(removeRepo(added, entry.repo), emptyHooks(template("hooks.yml")));
  assert.is(removeRepo("repos:\n  a/x: { dir: /x }\n  a/y: {}\n", "a/x"), "repos:\n  a/y: {}\n");
});

test("a ref names a branch as hook-server reads it", () => {
  for (const [ref, branch, named] of [
    ["main", "main", true],
    ["main", "mainly", false],
    ["release/*", "release/1", true],
    ["refs/heads/deploy", "deploy", true],
    ["refs/tags/v*", "v1", false],
  ] as const)
    assert.is(namesBranch(ref, branch), named, `${ref} ${branch}`);
});

test("the template with its example takes a second repo", async () => {
  const text = addRepo(template("hooks.yml"), entry);
  assert.match(text, "  jostylr/site:");
  assert.match(text, "  ada/My.Notes:");
});

test("repos in flow style are left to the person who wrote them", () => {
  assert.throws(() => addRepo("repos: { a/b: { dir: /x } }\n", entry), /no line "repos:" of its own/);
});

test.run();
