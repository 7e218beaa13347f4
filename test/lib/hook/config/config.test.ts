import { readFileSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { loadConfig } from "../../../../lib/hook/config/config.ts";
import { root } from "../../../helpers/runtime.ts";
import { needsOrdinaryUser, testUnless } from "../../../helpers/skip.ts";
import { tempDir } from "../../../helpers/tmp.ts";

async function load(text: string): Promise<Awaited<ReturnType<typeof loadConfig>>> {
  const dir = tempDir();
  await writeFile(join(dir, "s"), "secret", { mode: 0o600 });
  await writeFile(join(dir, "long"), "correct horse", { mode: 0o600 });
  await writeFile(join(dir, "hooks.yml"), text);
  return await loadConfig(join(dir, "hooks.yml"));
}

async function problem(text: string): Promise<string> {
  try {
    await load(text);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("nothing was wrong");
}

test("the example in templates/ is a configuration, and every key in it is read", async () => {
  const example = readFileSync(join(root, "templates/hooks.yml"), "utf8")
    .replace("user: site ", `user: ${userInfo().username} `)
    .replace("/etc/boatyard/site.secret", "s")
    .replace("# on_success:", "on_success:")
    .replace("# insecure: true", "insecure: true");
  const config = await load(example);
  assert.equal(config.listen, {
    deliveries: { path: "/run/boatyard/deliveries.sock" },
    page: { path: "/run/boatyard/page.sock" },
  });
  assert.is(config.state, "/var/lib/boatyard");
  assert.is(config.drain, 300_000);
  assert.is(config.keepFor, 30 * 86_400_000);
  const repo = config.repos.get("jostylr/site");
  assert.is(repo?.dir, "/home/site/site");
  assert.equal(repo?.secrets, ["secret"]);
  assert.equal(repo?.refs, ["main"]);
  assert.equal(repo?.afterwards, ["server-update site"]);
  assert.is(repo?.timeout, 1_800_000);
  assert.is(repo?.poll, 900_000);
});

test("what is left out has the documented default", async () => {
  const config = await load("repos: { a/b: { dir: x, secret_file: s } }");
  const repo = config.repos.get("a/b");
  assert.is(config.concurrency, 2);
  assert.is(config.keep, 50);
  assert.is(config.status, undefined);
  assert.equal({ ...repo?.on }, { push: "build", release: "release" });
  assert.is(repo?.refs, undefined);
  assert.is(repo?.cancel, false);
  assert.is(repo?.user.name, userInfo().username);
});

test("repos lie in hooks.yml and in the files of hooks.d: what stands in two of them is said with both places", async () => {
  const dir = tempDir();
  const write = (name: string, text: string) => writeFile(join(dir, name), text);
  await writeFile(join(dir, "s"), "secret", { mode: 0o600 });
  await mkdir(join(dir, "hooks.d"));
  await write("hooks.yml", "keep: 7\nrepos: # none here\n");
  await write("hooks.d/b.yml", "repos:\n  a/b: { dir: x, secret_file: s }\n");
  await write("hooks.d/c.yml", "repos:\n  a/c: { dir: /y, secret_file: s }\n");
  await write("hooks.d/c.yml~", "what an editor left");
  await write("hooks.d/.new.yml", "half written");
  const stamps = new Map<string, string>();
  const config = await loadConfig(join(dir, "hooks.yml"), {}, stamps);
  assert.equal([...config.repos.keys()], ["a/b", "a/c"]);
  assert.is(config.repos.get("a/b")?.dir, join(dir, "x"), "paths start from the folder of hooks.yml");
  assert.is(config.keep, 7);
  // a file that is put there, changed or removed is a reason to read again
  for (const name of ["hooks.yml", "hooks.d", "hooks.d/b.yml", "hooks.d/c.yml"]) assert.ok(stamps.has(join(dir, name)));
  const said = async () =>
    await loadConfig(join(dir, "hooks.yml")).then(
      () => "nothing was wrong",
      (error: unknown) => (error as Error).message.replaceAll(`${dir}/`, ""),
    );
  await write("hooks.d/d.yml", "keep: 8\n");
  assert.is(await said(), "hooks.d/d.yml:1:1: keep stands at hooks.yml:1:1, too; keep one");
  await write("hooks.d/d.yml", "repos: { a/c: { dir: z, secret_file: s } }\n");
  assert.is(await said(), "hooks.d/d.yml:1:10: a/c stands at hooks.d/c.yml:2:3, too; keep one");
  await write("hooks.d/d.yml", "repos: { A/C: { dir: z, secret_file: s } }\n");
  assert.match(
    await said(),
    /^hooks.d\/d.yml:1:\d+: A\/C and a\/c \(hooks.d\/c.yml:2:\d+\) are one repository to a forge/,
  );
  await write("hooks.d/d.yml", "repos:\n  a/d: { dirr: z, secret_file: s }\n");
  assert.match(await said(), /^hooks.d\/d.yml:2:10: unknown key "dirr"/);
  await write("hooks.d/d.yml", "repos: [a/d]\n");
  assert.is(await said(), "hooks.d/d.yml:1:1: repos stands at hooks.yml:2:1, too; keep one");
  await write("hooks.d/d.yml", "- a\n");
  assert.is(await said(), "hooks.d/d.yml:1:1: should be a mapping");
  await write("hooks.d/d.yml", "repos: {\n");
  assert.match(await said(), /^hooks.d\/d.yml:2:1: /);
});

test("every mistake is named with its place, and what is allowed", async () => {
  process.env["HALF_A_SIGNING_TOKEN"] = "whsec_dGVzdA==";
  const table: [string, RegExp][] = [
    [
      "repos: { a/b: { dir: x, secret_file: s, pol: 1h } }",
      /hooks\.yml:1:\d+: unknown key "pol" \(did you mean "poll"\?\)/,
    ],
    ["repos: { a/b: { secret_file: s } }", /"dir" is missing/],
    ["concurrency: 0\nrepos: {}", /hooks\.yml:1:14: expected a whole number from 1 to 1000/],
    ["repos: { a/b: { dir: x, secret_file: s, on: { pull: x } } }", /unknown key "pull"/],
    ["repos: { a/b: { dir: x, secret_file: s, on: { push: '../x' } } }", /script's name/],
    ["repos: { a/b: { dir: x, secret_file: [s, s, s] } }", /at most two secrets/],
    ["repos: { a/b: { dir: x, secret_env: NOT_SET_ANYWHERE } }", /NOT_SET_ANYWHERE is not set/],
    ["status: {}\nrepos: {}", /nobody could sign in/],
    [
      "status: { password_file: long }\nrepos: {}",
      /hooks\.yml:1:\d+: "url" is missing at the top; write the page's address/,
    ],
    [
      "status: { trust_header: X-User, trust_steer: [ada] }\nrepos: {}",
      /hooks\.yml:1:\d+: "url" is missing at the top; write the page's address/,
    ],
    [
      "repos:\n  a/b: { dir: x, secret_file: s }\n  A/B: { dir: y, secret_file: s }",
      /hooks\.yml:3:\d+: A\/B and a\/b \(\S+hooks\.yml:2:\d+\) are one repository to a forge/,
    ],
    [
      "repos: { a/b: { dir: x, secret_env: HALF_A_SIGNING_TOKEN } }",
      /hooks\.yml:1:\d+: the secret of a\/b begins as a signing token does, but is none/,
    ],
    ["repos: { constructor: { dir: x, insecure: true } }", /"constructor" is not a repository name/],
  ];
  for (const [text, message] of table) assert.match(await problem(text), message);
});

test("a file of signers that pushers or others could change is refused", async () => {
  const text = "repos: { a/b: { dir: co, insecure: true, signers:";
  assert.match(
    await problem(`${text} co/signers } }`),
    /hooks\.yml:1:\d+: .*co\/signers lies in the checkout, whose pushers could add/,
  );
  assert.match(await problem(`${text} none } }`), /hooks\.yml:1:\d+.*none cannot be read: ENOENT/);
  const open = join(tempDir(), "signers");
  await writeFile(open, "me@example.com ssh-ed25519 AAAA\n");
  const own = text.replace("insecure", "on: { push: /usr/local/bin/mine }, insecure");
  assert.match(await problem(`${own} ${open} } }`), "/usr/local/bin/mine checks no signature; on.push must be build");
  await chmod(open, 0o666);
  assert.match(await problem(`${text} ${open} } }`), /can be written by others; run: chmod go-w/);
});

testUnless(test, needsOrdinaryUser)("an ordinary user cannot name another one", async () => {
  const text = await problem("repos: { a/b: { dir: x, insecure: true, user: root } }");
  assert.match(text, /only root can build as root/);
});

test.run();
