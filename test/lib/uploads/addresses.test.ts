import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseGitUrl, parseRsync, parseS3 } from "../../../lib/uploads/addresses.ts";
import { compilePattern, patternProblem } from "../../../lib/uploads/headers.ts";

const s3: [string, { bucket: string; prefix: string } | RegExp][] = [
  ["s3://bucket", { bucket: "bucket", prefix: "" }],
  ["s3://bucket/", { bucket: "bucket", prefix: "" }],
  ["s3://my.bucket-1/a/b/", { bucket: "my.bucket-1", prefix: "a/b/" }],
  ["s3://bucket/../x", /holds \. or \.\./],
  ["s3://bucket//x", /holds \. or \.\./],
  ["https://bucket/x", /write s3:/],
  ["s3://-x/y", /write s3:/],
];
for (const [text, expected] of s3) {
  test(`S3 address ${text}`, () => {
    const address = parseS3(text);
    if (expected instanceof RegExp) assert.match(typeof address === "string" ? address : "", expected);
    else assert.equal(address, expected);
  });
}

const rsync: [string, string | RegExp][] = [
  ["site@web1:/srv/www/site", "site@web1 web1 /srv/www/site/"],
  ["web1:www/", "web1 web1 www/"],
  ["me@[::1]:/srv/", "me@[::1] ::1 /srv/"],
  ["/srv/www", "undefined undefined /srv/www/"],
  ["-oProxyCommand=x:/srv", /not an rsync address/],
  ["me@-oProxyCommand=x:/srv", /not an rsync address/],
  ["web1:-x", /like an option/],
  ["web1::module/x", /daemon/],
  ["rsync://web1/x", /daemon/],
  ["web1:", /names no folder/],
  ["relative/folder", /not an rsync address/],
];
for (const [text, expected] of rsync) {
  test(`rsync address ${text}`, () => {
    const address = parseRsync(text);
    if (expected instanceof RegExp) assert.match(typeof address === "string" ? address : "", expected);
    else if (typeof address === "string") assert.unreachable(address);
    else assert.is(`${address.login} ${address.host} ${address.path}`, expected);
  });
}

const urls: [string, RegExp | undefined][] = [
  ["git@github.com:me/site.git", undefined],
  ["ssh://git@host:2222/x.git", undefined],
  ["https://host/x.git", undefined],
  ["file:///srv/x.git", undefined],
  ["/srv/x.git", undefined],
  ["~/x.git", undefined],
  // it would be sought from the folder of our own repository
  ["../site.git", /is not an address/],
  ["--upload-pack=x", /like an option/],
  ["ext::sh -c x", /runs a program/],
  ["ftp://host/x", /cannot reach/],
  ["https://token@host/x.git", /holds a login/],
];
for (const [text, expected] of urls) {
  test(`git address ${text}`, () => {
    const problem = parseGitUrl(text);
    if (expected) assert.match(problem ?? "", expected);
    else assert.is(problem, undefined);
  });
}

const patterns: [string, string[], string[]][] = [
  ["*.html", ["index.html", "a/b/c.html"], ["index.htm", "x.html/y"]],
  ["assets/**", ["assets/a", "assets/a/b.js"], ["assets", "x/assets/a"]],
  ["**/x.js", ["x.js", "a/x.js", "a/b/x.js"], ["ax.js"]],
  ["a/*.{js,css}", ["a/b.js", "a/b.css"], ["a/b/c.js", "a/b.cssx"]],
  ["a?.txt", ["ab.txt", "a⛵.txt"], ["a.txt", "abc.txt"]],
  ["(x)+[y].txt", ["(x)+[y].txt"], ["xy.txt"]],
];
for (const [pattern, yes, no] of patterns) {
  test(`pattern ${pattern}`, () => {
    const fits = compilePattern(pattern);
    for (const path of yes) assert.ok(fits(path), path);
    for (const path of no) assert.not(fits(path), path);
  });
}

test("a pattern that cannot fit anything is an error", () => {
  for (const wrong of ["", "/abs", "{a,b", "a}"]) assert.type(patternProblem(wrong), "string");
  assert.is(patternProblem("a/{b,c}/**"), undefined);
});

test.run();
