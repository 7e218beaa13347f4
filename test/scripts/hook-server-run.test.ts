// `hook-server run`: a run that no forge asked for.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { logOf, makeYard, runScript, startHooks } from "../helpers/hooks.ts";
import { git, makeRepo } from "../helpers/repos.ts";

async function start(more = "") {
  const repo = await makeRepo({ files: { "a.txt": "1" } });
  const dir = await makeYard({
    repos: { "me/site": more },
    job: 'echo "built $HOOK_REF at $HOOK_SHA"; exit ${EXIT:-0}',
  });
  await rm(join(dir, "co"), { recursive: true });
  await repo.checkout(join(dir, "co"));
  const server = await startHooks(dir);
  const run = (...args: string[]) =>
    runScript("hook-server", ["run", ...args, "--config", join(dir, "hooks.yml"), "--state", server.state]);
  return { repo, server, run };
}

test("hook-server run builds the newest commit of the branch, and -f shows its log to the end", async () => {
  const { repo, server, run } = await start();
  const newest = await repo.push({ "a.txt": "2" });
  const { code, stdout } = await run("me/site", "-f");
  assert.is(code, 0);
  assert.match(stdout, `built refs/heads/main at ${newest}\n`);
  assert.equal(
    (await server.runs()).map(({ sha, state }) => ({ sha, state })),
    [{ sha: newest, state: "succeeded" }],
  );
  const older = await git(repo.bare, "rev-parse", "main~1");
  const asked = await run("me/site", "--sha", older, "--json");
  const { run: id } = JSON.parse(asked.stdout);
  await server.idle();
  assert.match(logOf(server, id), `built refs/heads/main at ${older}\n`);
  await server.stop();
});

test("hook-server run --tag releases a tag", async () => {
  const { repo, server, run } = await start();
  await git(repo.bare, "-c", "user.name=a", "-c", "user.email=a@b.c", "tag", "-a", "-m", "one", "v1", "main");
  const { stdout } = await run("me/site", "--tag", "v1", "-f");
  assert.match(stdout, `built refs/tags/v1 at ${await git(repo.bare, "rev-parse", "main")}\n`);
  await server.stop();
});

test("hook-server run names what it does not know, and starts nothing", async () => {
  const { server, run } = await start();
  for (const [args, said] of [
    [["me/sit"], 'me/sit is not in hooks.yml (did you mean "me/site"?)'],
    [["me/site", "--ref", "gone"], "refs: of me/site in hooks.yml does not name refs/heads/gone"],
    [["me/site", "--tag", "v9"], "the remote of me/site has no refs/tags/v9"],
    [["me/site", "--sha", "abc"], "the remote of me/site has no abc"],
    [["me/site", "--ref", "../x"], "../x is not the name of a branch or tag"],
  ] as const) {
    const { code, stderr } = await run(...args);
    assert.is(code, 1);
    assert.is(stderr, `hook-server: ${said}\n`);
  }
  assert.is((await run("me/site", "--ref", "main", "--tag", "v1")).code, 2);
  assert.equal(await server.runs(), []);
  await server.stop();
});

test.run();
