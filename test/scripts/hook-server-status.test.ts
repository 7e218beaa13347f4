// `hook-server status`: what the page shows at /, as a table in a terminal, as JSON, and kept.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type HookServer, makeYard, pushPayload, sha, startHooks } from "../helpers/hooks.ts";
import { runScript, scriptArgv, startCommand, startScript } from "../helpers/run.ts";
import { waitFor } from "../helpers/wait.ts";

const commit = (message: string) => ({ head_commit: { id: sha(1), message } });
const push = (server: HookServer, repo: string, n: number, message: string) =>
  server.send({ payload: { ...pushPayload(repo, sha(n)), ...commit(message) } });

/** A repo that failed, one that runs with one behind it, one without runs. */
async function busyServer(): Promise<HookServer> {
  const dir = await makeYard({
    repos: { "me/quiet": "", "me/broken": "", "me/busy": "" },
    job: 'test "$HOOK_REPO" = me/broken && exit 1; until test -e go; do sleep 0.05; done',
  });
  const server = await startHooks(dir);
  await push(server, "me/broken", 1, "A title\u001b]0;owned\u0007 with an escape\n\nand more");
  await server.idle();
  await push(server, "me/busy", 2, "The one that runs");
  await waitFor(async () => (await server.runs()).some(({ state }) => state === "running"));
  await push(server, "me/busy", 3, "The one behind it");
  return server;
}

const status = (server: HookServer, ...more: string[]) =>
  runScript("hook-server", ["status", "--state", server.state, ...more], { expect: 0 });

test("the table has all repos, the worst first, what runs and what waits behind what; nothing in it acts", async () => {
  const server = await busyServer();
  const { stdout } = await status(server);
  const lines = stdout.split("\n");
  assert.is(lines[0], "3 repos · 1 failed · 1 running · 1 waiting");
  const running = (await server.runs()).find(({ state }) => state === "running");
  assert.match(lines[2] ?? "", /^running +me\/busy +main +The one that runs +\d/);
  assert.match(lines[3] ?? "", new RegExp(`^waiting +me/busy +main +behind ${running?.id} `));
  assert.match(lines[5] ?? "", /^REPO +LAST RUN +REF +COMMIT +BY +WHEN +TOOK +LAST 30$/);
  assert.match(lines[6] ?? "", /^me\/broken +failed +main +A title.* with an escape +ada +\d+ s ago +\d\.\d s +[▁-█]$/);
  assert.match(lines[7] ?? "", /^me\/busy +running +main +The one that runs/);
  assert.match(lines[8] ?? "", /^me\/quiet +no runs +never/);
  assert.not.match(stdout, /[\u001b\u0007]/);
  const json = JSON.parse((await status(server, "--json")).stdout);
  assert.equal(
    json.repos.map(({ repo, waiting }: { repo: string; waiting: number }) => [repo, waiting]),
    [
      ["me/broken", 0],
      ["me/busy", 1],
      ["me/quiet", 0],
    ],
  );
  assert.is(json.repos[0].last.state, "failed");
  assert.is(json.repos[0].recent.length, 1);
  assert.is(json.waiting[0].behind, running?.id);
  assert.equal(json.problems, []);
  await writeFile(join(server.dir, "co/go"), "");
  await server.idle();
  await server.stop();
});

test("--watch prints what changes, stays while the server restarts, and ends with Ctrl-C", async () => {
  const server = await busyServer();
  const args = ["status", "--state", server.state, "--watch"];
  const watching = startScript("hook-server", args);
  const shell = scriptArgv("hook-server")
    .concat(args)
    .map((word) => `'${word}'`)
    .join(" ");
  const screen = startCommand(["script", "-qefc", shell, "/dev/null"], { env: { TERM: "xterm" } });
  await watching.until(/1 failed · 1 running · 1 waiting/);
  await screen.until((output) => stripVTControlCharacters(output).includes("1 waiting"));
  await writeFile(join(server.dir, "co/go"), "");
  await server.idle();
  await watching.until(/^3 repos · 1 failed$/m);
  await screen.until((output) =>
    stripVTControlCharacters(output).replaceAll("\r", "").includes("3 repos · 1 failed\n"),
  );
  await server.stop();
  await watching.until(/no hook-server answers/);
  const next = await startHooks(server.dir);
  await push(next, "me/quiet", 4, "After the restart");
  await watching.until(/me\/quiet +succeeded +main +After the restart/);
  await screen.until(/After the restart/);
  assert.is((await watching.stop("SIGINT")).code, 130);
  await screen.stop();
  await next.stop();
  const alone = await runScript("hook-server", ["status", "--state", server.state], { expect: 1 });
  assert.match(alone.stderr, "no hook-server answers");
});

test.run();
