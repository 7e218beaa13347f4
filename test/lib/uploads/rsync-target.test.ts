import { test } from "uvu";
import * as assert from "uvu/assert";
import type { RsyncTarget } from "../../../lib/uploads/config.ts";
import { contentTypes } from "../../../lib/uploads/headers.ts";
import { explainRsync, readItem, rsyncOptions, rsyncPlace, sendsOf } from "../../../lib/uploads/rsync-target.ts";
import { explainSsh, sharedConnection, sshForRsync, sshForShell } from "../../../lib/uploads/ssh.ts";

const target: RsyncTarget = {
  ...{ kind: "rsync", name: "web", delete: true },
  address: { login: "site@web1", host: "web1", path: "/srv/www/" },
  ssh: { key: "/home/me/my keys/id", knownHosts: "/k", port: 2222 },
};

const shared = sharedConnection("/tmp/s");

test("rsync goes over ssh to known hosts only, with the target's own key, over one connection", () => {
  const options = rsyncOptions(target, shared, false);
  assert.ok(options.includes("--protect-args"));
  assert.not(options.some((flag) => flag === "--times" || flag === "--dry-run" || flag.startsWith("--delete")));
  const rsh = options[options.indexOf("--rsh") + 1] ?? "";
  assert.match(rsh, "-o StrictHostKeyChecking=yes");
  assert.match(rsh, "-p 2222");
  assert.match(rsh, '-i "/home/me/my keys/id"');
  assert.match(rsh, "-o ControlMaster=auto -o ControlPath=/tmp/s");
  assert.is(rsyncPlace(target.address), "site@web1:/srv/www/");
});

test("a local folder is reached without ssh", () => {
  const local = { ...target, address: { path: "/srv/" } };
  const options = rsyncOptions(local, shared, true);
  assert.not(options.includes("--rsh"));
  assert.ok(options.includes("--dry-run"));
  assert.is(rsyncPlace(local.address), "/srv/");
});

test("assets go before pages", async () => {
  const typeOf = await contentTypes();
  const files = ["a.css", "b/index.html", "feed.rss", "x.js"].map((path) => ({ path }));
  assert.equal(sendsOf(files, typeOf), [
    ["a.css", "x.js"],
    ["b/index.html", "feed.rss"],
  ]);
  assert.equal(sendsOf([], typeOf), []);
});

test("a socket's path that is too long for ssh is done without", () => {
  assert.equal(sharedConnection(`/tmp/${"x".repeat(90)}`), []);
});

test("rsync's report becomes changes", () => {
  const sizes = new Map([
    ["a b.txt", 5],
    ["x\ny", 7],
  ]);
  const read = (line: string) => readItem(line, sizes);
  assert.equal(read("<f+++++++++ a b.txt"), { action: "new", path: "a b.txt", size: 5 });
  assert.equal(read(">f+++++++++ a b.txt"), { action: "new", path: "a b.txt", size: 5 });
  assert.equal(read("<fcsT...... x\\#012y"), { action: "replace", path: "x\ny", size: 7 });
  assert.equal(read("*deleting   old name"), { action: "delete", path: "old name", size: 0 });
  assert.is(read("*deleting   folder/"), undefined);
  assert.is(read("cd+++++++++ folder/"), undefined);
  assert.is(read(".f...p..... a b.txt"), undefined);
  assert.is(read("sent 12 bytes"), undefined);
});

const exits: [number, string, RegExp, string][] = [
  [12, "rsync: connection unexpectedly closed", /broke off/, "TryAgain"],
  [30, "", /broke off/, "TryAgain"],
  [255, "ssh: connect to host web1 port 22: Connection refused", /failed or broke off/, "TryAgain"],
  [255, "Host key verification failed.", /ssh-keyscan -p 2222 web1/, "Failure"],
  [255, "me@web1: Permission denied (publickey).", /authorized_keys/, "Failure"],
  [11, "rsync: write failed: No space left on device (28)", /disk of web1 is full/, "Failure"],
  [127, "bash: rsync: command not found", /no rsync on web1/, "Failure"],
  [23, "rsync: mkstemp failed: Permission denied (13)", /does not let us write/, "Failure"],
];
for (const [code, stderr, sentence, name] of exits) {
  test(`rsync's exit ${code} with "${stderr}" has a sentence of its own`, () => {
    const failure = explainRsync({ exitCode: code, signal: null }, stderr, target);
    assert.match(failure?.message ?? "", sentence);
    assert.is(failure?.name, name);
  });
}

test("the ssh command survives both ways of splitting it", () => {
  const ssh = { key: "/a 'b'/\"c\"" };
  assert.match(sshForShell(ssh), `'/a '\\''b'\\''/"c"'`);
  assert.match(sshForRsync(ssh), `"/a 'b'/""c"""`);
  assert.is(explainSsh("something else", "h", ssh), undefined);
});

test.run();
