import { test } from "uvu";
import * as assert from "uvu/assert";
import { emptyHooks, entryText, fileFor, namesBranch, readHooks } from "../../../lib/setup/hooks-file.ts";
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

test("a repo has a file of its own, and YAML reads what was meant", async () => {
  const [one] = Object.values(await reposIn(entryText(entry)));
  assert.equal(one?.refs, ["main", "release/*"]);
  assert.equal(one?.["on_success"], ["server-update notes"]);
  assert.equal(Object.keys(await reposIn(entryText({ ...entry, refs: [], afterwards: [] }))), ["ada/My.Notes"]);
  assert.is(fileFor("group/sub/name"), "/etc/boatyard/hooks.d/group+sub+name.yml");
});

test("a user or a folder whose name YAML would take for something else is written as text", async () => {
  const text = entryText({ ...entry, user: "true", dir: "/srv/a: b #c" });
  const { user, dir } = (await reposIn(text))[entry.repo] ?? {};
  assert.equal([user, dir], ["true", "/srv/a: b #c"]);
});

test("all repos are found, however they are written", async () => {
  const repos = await readHooks(
    `# user: nobody
repos:
  jostylr/site:      # user: comment
    user: site
    dir: /home/site/site
    secret_file: site.secret
    refs: main
  "ada/x": { dir: /x, user: "x", refs: [a, 'b/*'] }
  ada/y:
    dir: /y
`,
    "/etc/boatyard/hooks.d/x.yml",
  );
  assert.equal(
    repos.map(({ repo, user, refs }) => [repo, user, refs]),
    [
      ["jostylr/site", "site", ["main"]],
      ["ada/x", "x", ["a", "b/*"]],
      ["ada/y", undefined, undefined],
    ],
  );
  assert.equal(repos[0]?.secretFiles, ["/etc/boatyard/site.secret"], "paths start from the folder of hooks.yml");
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

test.run();
