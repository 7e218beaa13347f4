import { test } from "uvu";
import * as assert from "uvu/assert";
import { commentFor } from "../../../lib/exec/users.ts";
import { chooseAccount, unixName } from "../../../lib/setup/accounts.ts";
import { parsePasswd } from "../../../lib/setup/machine.ts";

test("a repo's name becomes a name that useradd takes", () => {
  const table: [string, string][] = [
    ["site", "site"],
    ["My.Site", "my-site"],
    ["UPPER_case-9", "upper_case-9"],
    ["2048", "r-2048"],
    ["...", "r"],
    ["-x-", "x"],
    ["a".repeat(31), "a".repeat(31)],
  ];
  for (const [name, wanted] of table) assert.is(unixName(name), wanted, name);
});

test("long names are cut, and stay apart", () => {
  const one = unixName(`${"x".repeat(59)}1`);
  const other = unixName(`${"x".repeat(59)}2`);
  for (const name of [one, other]) assert.match(name, /^x{24}-[0-9a-f]{6}$/);
  assert.is.not(one, other);
  assert.is(unixName(`${"X".repeat(59)}1`), one);
});

const accounts = parsePasswd(
  [
    "root:x:0:0:root:/root:/bin/bash",
    "toor:x:0:0::/root:/bin/sh",
    "www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin",
    "ada:x:1000:1000:Ada,,,:/home/ada:/bin/bash",
    "lowly:x:500:500::/:/bin/sh",
    `site:x:1001:1001:${commentFor("jostylr/site")}:/home/site:/bin/bash`,
  ].join("\n"),
);
const choose = (what: string, derived: string, given?: string) => chooseAccount({ what, derived, given }, accounts);

test("an account is taken when it is free, its own, or a person's and named on purpose", () => {
  assert.is(choose("ada/notes", "notes"), "notes");
  assert.is(choose("jostylr/site", "site"), "site");
  assert.is(choose("ada/x", "x", "ada"), "ada");
});

test("root, the system's accounts and other repos' accounts are refused with the way out", () => {
  assert.throws(() => choose("a/root", "root"), /may not be root's; name another account with --user/);
  assert.throws(() => choose("a/b", "b", "root"), /may not be root's/);
  assert.throws(() => choose("a/b", "b", "toor"), /may not be root's/);
  assert.throws(() => choose("a/www-data", "www-data"), /system account/);
  assert.throws(() => choose("a/b", "b", "www-data"), /system account/);
  assert.throws(() => choose("a/sshd", "sshd"), /system account/);
  assert.throws(() => choose("a/b", "b", "lowly"), /a system account/);
  assert.throws(() => choose("a/ada", "ada"), /setup did not make/);
  assert.throws(() => choose("other/site", "site"), /is there for jostylr\/site/);
  assert.throws(() => choose("a/b", "b", "-x"), /not a name for a Unix user/);
  assert.throws(() => choose("a/b", "b", "Ada"), /not a name for a Unix user/);
});

test.run();
