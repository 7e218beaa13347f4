// `hook-server run`: a run that no forge asked for.
import { readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
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

/** A server that listens at a port of its own, and what sends to it a test delivery. */
async function startSending(secrets: Record<string, string>) {
  const dir = await makeYard({
    repos: Object.fromEntries(Object.keys(secrets).map((name) => [name, `secret_file: ${name.slice(3)}`])),
  });
  for (const [name, text] of Object.entries(secrets))
    await writeFile(join(dir, name.slice(3)), `${text}\n`, { mode: 0o600 });
  const server = await startHooks(dir);
  const to = `http://127.0.0.1:${server.port}/hook`;
  const send = (repo: string, { address = to, config = "hooks.yml" } = {}) =>
    runScript("hook-server", ["send", repo, "--to", address, "--config", join(dir, config)]);
  return { dir, server, to, send };
}

test("hook-server send shows that a delivery signed with the repo's secret arrives, and starts nothing", async () => {
  const token = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
  const { dir, server, to, send } = await startSending({ "me/site": "a-secret-of-the-forge", "me/lab": token });
  for (const repo of ["me/site", "me/lab"]) {
    const { code, stdout, stderr } = await send(repo);
    assert.is(code, 0, stderr);
    assert.is(stdout, `ok  ${to} takes deliveries of ${repo}\n`);
  }
  assert.equal(await server.runs(), []);
  // the forge has another secret than the server
  await writeFile(
    join(dir, "other.yml"),
    readFileSync(join(dir, "hooks.yml"), "utf8").replace("secret_file: site", "secret_file: other"),
  );
  await writeFile(join(dir, "other"), "a-secret-that-is-new\n", { mode: 0o600 });
  const refused = await send("me/site", { config: "other.yml" });
  assert.is(refused.code, 1);
  assert.match(refused.stderr, `${to} answered 401: `);
  assert.not.match(refused.stderr + refused.stdout, "a-secret");
  await server.stop();
  const gone = await send("me/site");
  assert.is(gone.code, 1);
  assert.match(gone.stderr, `${to} does not answer: `);
});

test("hook-server send takes no repo that it does not know, and no address with a login", async () => {
  const { server, to, send } = await startSending({ "me/site": "a-secret-of-the-forge" });
  const unknown = await send("me/sit");
  assert.is(unknown.code, 2);
  assert.match(unknown.stderr, 'hooks.yml (did you mean "me/site"?)');
  const login = await send("me/site", { address: to.replace("//", "//ada:planted-word@") });
  assert.is(login.code, 2);
  assert.not.match(login.stderr, "planted-word");
  await server.stop();
});

test.run();
