// "Why did my push not run?": deliveries of which no run came can be looked up afterwards.
import * as assert from "uvu/assert";
import { test } from "uvu";
import { http, makeYard, pushPayload, runScript, sha, startHooks } from "../helpers/hooks.ts";

test("genuine deliveries that start nothing are listed with time, repo, event, ref and reason, also after a restart", async () => {
  const dir = await makeYard({
    repos: { "me/site": "", "me/open": "insecure: true" },
    top: "status: { token_env: STATUS_TOKEN }",
  });
  const env = { STATUS_TOKEN: "planted-token-of-the-status" };
  let server = await startHooks(dir, { env });
  assert.equal((await server.local("/ignored")).body, { ignored: [] });
  const repository = { full_name: "me/site" };
  const deleted = { ...pushPayload("me/site", "0".repeat(40), "refs/heads/old"), deleted: true };
  await server.push("me/site", sha(1), { ref: "refs/heads/evil\u202e" });
  await server.push("me/site", sha(1), { ref: "refs/tags/v1" });
  await server.send({ event: "issues\t", payload: { repository } });
  await server.send({ event: "pull_request", payload: { repository, action: "opened" } });
  await server.send({ payload: deleted });
  await server.send({ event: "ping", payload: { zen: "of an organisation" }, id: "its-id" });
  const { run } = (await server.push("me/site", sha(2), { id: "twice" })).body;
  await server.push("me/site", sha(2), { id: "twice" });
  // nobody has proved anything by these
  await server.push("me/site", sha(1), { ref: "refs/heads/x", key: "wrong secret of somebody" });
  await server.push("me/open", sha(1), { ref: "refs/heads/x", key: null });
  await server.idle();
  await server.stop();
  server = await startHooks(dir, { env });
  const answer = await http({ port: server.port }, "/ignored?limit=50", {
    headers: { authorization: `Bearer ${env.STATUS_TOKEN}` },
  });
  type Shown = { time: string; repo?: string; event: string; ref?: string; reason: string };
  const shown = answer.body.ignored as Shown[];
  assert.equal(
    shown.map(({ repo, event, ref, reason }) => [repo, event, ref, reason].join(" | ")),
    [
      `me/site | push | refs/heads/main | accepted before as ${run}`,
      " | ping |  | pong",
      "me/site | push | refs/heads/old | the ref was deleted",
      "me/site | pull_request |  | pull requests are not built, only pushes and releases are",
      "me/site | issues |  | no repo is configured for this event",
      "me/site | push | refs/tags/v1 | no repo is configured for this ref",
      "me/site | push | refs/heads/evil\u202e | no repo is configured for this ref",
    ],
  );
  assert.ok(shown.every(({ time }) => Math.abs(Date.parse(time) - Date.now()) < 600_000));
  assert.is((await http({ port: server.port }, "/ignored")).status, 401);
  const list = async (...args: string[]) =>
    (await runScript("hook-server", ["list", ...args, "--state", server.state], { expect: 0 })).stdout;
  const table = await list("--ignored");
  assert.match(table, /^RECEIVED +REPO +EVENT +REF +WHY\n/);
  assert.match(table, /^\d+ (?:s|min) ago +me\/site +github push +tag v1 +no repo is configured for this ref$/m);
  assert.match(table, / evil<202e> /);
  const filtered = JSON.parse(await list("--ignored", "--json", "--repo", "me/site", "-n", "2")) as {
    ignored: Shown[];
  };
  assert.equal(filtered.ignored, [shown[0], shown[2]]);
  assert.match(await list(), new RegExp(`^${run} .* \\d+ (?:s|min) ago$`, "m"));
  const both = ["list", "--ignored", "--only", "failed", "--state", server.state];
  assert.is((await runScript("hook-server", both)).code, 2);
  await server.stop();
});

test.run();
