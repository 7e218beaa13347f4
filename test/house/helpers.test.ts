import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { freePort } from "../helpers/ports.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { runCommand, startCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir, withTemp } from "../helpers/tmp.ts";
import { withUser } from "../helpers/users.ts";
import { waitFor } from "../helpers/wait.ts";

test("a command sees only the small environment and what it was given", async () => {
  process.env["BOATYARD_CANARY"] = "leaked";
  const { stdout } = await runCommand(["env"], { env: { GIVEN: "1", HOME: undefined } });
  const names = stdout.split("\n").map((line) => line.split("=")[0]);
  assert.ok(names.includes("GIVEN") && names.includes("PATH"));
  assert.not.ok(names.includes("BOATYARD_CANARY") || names.includes("HOME"));
  const bare = await runCommand(["/usr/bin/env"], { bare: true, env: { ONLY: "1" } });
  assert.is(bare.stdout, "ONLY=1\n");
});

test("an unexpected exit code fails with the whole output", async () => {
  const argv = ["sh", "-c", "echo out; echo err >&2; exit 3"];
  await runCommand(argv, { expect: 3 });
  const error: Error = await runCommand(argv, { expect: 0 }).then(
    () => assert.unreachable(),
    (error) => error,
  );
  assert.match(error.message, /exited 3, not 0[\s\S]*out[\s\S]*err/);
});

test("a command that hangs is killed and fails", async () => {
  const error: Error = await runCommand(["sleep", "60"], { timeout: 50 }).then(
    () => assert.unreachable(),
    (error) => error,
  );
  assert.match(error.message, /had not ended after \d+ ms/);
});

test("a long-lived process is waited for by its output, and stopped", async () => {
  const server = startCommand(["sh", "-c", "echo ready on 42; exec sleep 60"]);
  const [, port] = await server.until(/on (\d+)/);
  assert.is(port, "42");
  assert.is((await server.stop()).signal, "SIGTERM");
  const short = startCommand(["echo", "nothing"]);
  const error: Error = await short.until(/ready/).then(
    () => assert.unreachable(),
    (error) => error,
  );
  assert.match(error.message, /ended before/);
});

test("waiting in vain says for what, and shows the last error", async () => {
  const condition = () => {
    throw new Error("not there");
  };
  const error: Error = await waitFor(condition, { timeout: 20, what: "a ship" }).then(
    () => assert.unreachable(),
    (error) => error,
  );
  assert.match(error.message, /in vain for a ship: Error: not there/);
});

test("temporary folders are removed", async () => {
  const folder = await withTemp((folder) => folder);
  assert.not.ok(existsSync(folder));
});

test("free ports are free", async () => {
  assert.ok((await freePort()) > 1023);
});

test("a test repository takes pushes, tags and submodules, and is cloned", async () => {
  const part = await makeRepo({ name: "part", files: { "part.txt": "1" } });
  const repo = await makeRepo({ name: "jostylr/site", files: { "a.md": "# A", "b.md": "B" } });
  const sha = await repo.push({ "a.md": "# A2", "b.md": null });
  await repo.tag("v1");
  await repo.tag("v2", "Second");
  await repo.addSubmodule(part.bare, "part");
  const checkout = await repo.checkout(join(tempDir(), "site"));
  assert.is(await git(checkout, "rev-parse", "v1"), sha);
  assert.is(await git(checkout, "ls-tree", "--name-only", "HEAD"), ".gitmodules\na.md\npart");
  assert.is(await git(checkout, "log", "-1", "--format=%an <%ae>"), "Ada <ada@example.com>");
});

testUnless(test, needsRoot)("a second user can work in a temporary folder's subfolder", async () => {
  await withUser(async ({ name, uid }) => {
    const folder = tempDir();
    await runCommand(["install", "-d", "-o", name, join(folder, "mine")], { expect: 0 });
    const argv = ["setpriv", `--reuid=${uid}`, "--clear-groups", "touch", "mine/file"];
    await runCommand(argv, { cwd: folder, expect: 0 });
    assert.ok(existsSync(join(folder, "mine/file")));
  });
});

test.run();
