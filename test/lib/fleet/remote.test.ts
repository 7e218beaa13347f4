import { test } from "uvu";
import * as assert from "uvu/assert";
import { readTip } from "../../../lib/fleet/remote.ts";
import { checkBase } from "../../../lib/fleet/settings.ts";

test("bases that name a place are taken, less their last slash", () => {
  const good: [string, string][] = [
    ["https://github.com/aiegoo/", "https://github.com/aiegoo"],
    ["http://127.0.0.1:8080/git", "http://127.0.0.1:8080/git"],
    ["ssh://git@host.example:2222/srv/git/", "ssh://git@host.example:2222/srv/git"],
    ["git://host/", "git://host"],
    ["https://[::1]:8443/x", "https://[::1]:8443/x"],
    ["file:///srv/git//", "file:///srv/git"],
  ];
  for (const [base, expected] of good) assert.is(checkBase(base), expected);
});

test("bases that could run a command, ask for an option or show a password are refused", () => {
  const bad = [
    "ext::sh -c touch% /tmp/x",
    "ssh://-oProxyCommand=x/y",
    "ssh://-oProxyCommand=x@host/y",
    "git@github.com:me",
    "/srv/git",
    "file://host/srv",
    "file:relative",
    "--upload-pack=x",
    "https://user:pass@host/x",
    "https://host/x?y=1",
    "https://host/x#y",
    "https://host/a b",
    "https:///x",
    "HTTPS://host/x",
    "fd::17",
    "https://host/\u0000",
    "",
  ];
  for (const base of bad) assert.throws(() => checkBase(base), /^base "/, base);
  for (const password of ["hunter2", "hunter/2", "hunter2:", "hunter2@x"])
    assert.throws(
      () => checkBase(`https://user:${password}@host/x`),
      (error: Error) => !error.message.includes("hunter"),
    );
});

const [a, b, c] = ["a".repeat(40), "b".repeat(40), "c".repeat(40)];

test("the tip of a remote's default branch, of a branch and of a tag", () => {
  assert.equal(readTip(`ref: refs/heads/main\tHEAD\n${a}\tHEAD\n`, undefined), {
    sha: a,
    branch: "main",
  });
  assert.equal(readTip(`${b}\trefs/heads/v2\n${c}\trefs/tags/v2\n`, "v2"), {
    sha: b,
    branch: "v2",
  });
  assert.equal(readTip(`${b}\trefs/tags/v2\n${c}\trefs/tags/v2^{}\n`, "v2"), {
    sha: c,
    branch: undefined,
  });
  assert.is(readTip("", "v2"), undefined);
  assert.is(readTip("", undefined), undefined);
});

test("a HEAD that is on no branch, or on one that no branch may be called, is no branch", () => {
  for (const head of ["refs/meta/config", "refs/heads/../../x", "refs/heads/-x", "refs/heads/a b"])
    assert.equal(readTip(`ref: ${head}\tHEAD\n${a}\tHEAD\n`, undefined), {
      sha: a,
      branch: undefined,
    });
});

test.run();
