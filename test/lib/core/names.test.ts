import { test } from "uvu";
import * as assert from "uvu/assert";
import { isRepoName, isSafeRef, isSha, isShortName, nearest } from "../../../lib/core/names.ts";
import { isRunId, newRunId } from "../../../lib/core/id.ts";

test("only plain names are repo names", () => {
  for (const name of ["site", "my.site", "a-b_c", "A1"]) assert.ok(isShortName(name), name);
  assert.not.ok(isShortName("a/b"));
  const bad = ["", ".", "..", "-x", ".git", "a.git", "a.lock", "a b", "a;b", "$(x)", "ä"];
  for (const name of [...bad, "x".repeat(101), "a\n", "a\0"]) {
    assert.not.ok(isShortName(name), JSON.stringify(name));
    assert.not.ok(isRepoName(`owner/${name}`), JSON.stringify(name));
  }
  for (const name of ["o/r", "group/sub/name"]) assert.ok(isRepoName(name), name);
  for (const name of ["o", "/r", "o/", "o//r", "../r", "o/..", "--x/y"]) {
    assert.not.ok(isRepoName(name), name);
  }
});

test("a forge's own names that begin with a dot, _ or ~ are repo names; what could leave a folder is none", () => {
  const long = "x".repeat(99);
  for (const name of ["me/.github", "me/_site", "g/s/.gitlab", "~ada/site", `me/.${long}`])
    assert.ok(isRepoName(name), name);
  const bad = ["me/.", "me/..", "me/...", "me/.git", "me/.GIT", "me/.a.git", "me/.lock", "me/_.lock"];
  const worse = ["./x", "../x", ".me/x", "g/../x", "g/.s/x", "~/x", "~~a/x", "g/~a/x", "me/~x", "me/-x"];
  for (const name of [...bad, ...worse, "me/. x", "me/.x\n", "me/.ä", `me/.${long}x`])
    assert.not.ok(isRepoName(name), JSON.stringify(name));
});

test("only refs that git would take, and that are no options, are refs", () => {
  for (const ref of ["main", "refs/heads/feature/a-b", "v1.2.3", "refs/tags/ü"]) {
    assert.ok(isSafeRef(ref), ref);
  }
  const bad = ["", "@", "-x", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a"];
  for (const ref of [...bad, "a/", "a//b", ".a", "a/.b", "a.lock", "a.", "a@{1}", "a\nb"]) {
    assert.not.ok(isSafeRef(ref), JSON.stringify(ref));
  }
});

test("an object id is 40 or 64 hex digits", () => {
  assert.ok(isSha("a".repeat(40)));
  assert.ok(isSha("0".repeat(64)));
  for (const text of ["abc", "A".repeat(40), "g".repeat(40), `${"a".repeat(40)}\n`]) {
    assert.not.ok(isSha(text), text);
  }
});

test("a mistyped word gets the nearest one, a strange one none", () => {
  const words = ["listen", "state", "concurrency", "repos"];
  assert.is(nearest("lsiten", words), "listen");
  assert.is(nearest("repo", words), "repos");
  assert.is(nearest("Concurency", words), "concurrency");
  assert.is(nearest("banana", words), undefined);
  assert.is(nearest("c", ["a", "b", "cc"]), undefined, "one letter is like any other");
  assert.is(nearest("A", ["a", "b"]), "a");
});

test("run ids sort by time", () => {
  const early = newRunId(new Date("2026-11-20T10:15:00.123Z"));
  const late = newRunId(new Date("2026-11-20T10:15:01Z"));
  assert.match(early, /^20261120T101500Z-[0-9a-f]{6}$/);
  assert.ok(early < late);
  assert.ok(isRunId(early));
  assert.not.ok(isRunId("../20261120T101500Z-3f2a9c"));
});

test.run();
