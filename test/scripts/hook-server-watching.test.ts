// What a page or Prometheus sees of the server: a log as it grows, and the metrics.
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { request } from "node:http";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { http, makeYard, secret, sha, startHooks } from "../helpers/hooks.ts";
import { waitFor } from "../helpers/wait.ts";

/** The lines of a stream of server-sent events, as a browser takes them apart: CR ends a line, too. */
function eventsOf(text: string): { event: string; data: string[] }[] {
  return text
    .split("\n\n")
    .filter((block) => block !== "" && !block.startsWith("retry:"))
    .map((block) => {
      const found = { event: "message", data: [] as string[] };
      for (const line of block.split(/\r\n|\r|\n/)) {
        const [name, value = ""] = line.split(/: ?(.*)/s);
        if (name === "data") found.data.push(value);
        else if (name === "event") found.event = value;
        else if (!["", "id", "retry"].includes(name ?? "")) throw new Error(`a field that nobody knows: ${line}`);
      }
      return found;
    });
}

test("log?follow=1 sends a log's lines as they come, and all of it also when a secret is masked at the end", async () => {
  const dir = await makeYard({
    job: `for n in 1 2 3 4 5 6 7 8 9; do echo "$n ${secret}"; done; printf 'half\\r100%%\\n'; until test -e go; do sleep 0.02; done; echo last words; exit 4`,
  });
  const server = await startHooks(dir);
  const { run } = (await server.push("me/site", sha(1))).body;
  let text = "";
  const ended = new Promise<void>((resolve, reject) => {
    const socketPath = join(server.state, "socket");
    request({ socketPath, path: `/runs/${run}/log?follow=1` }, (response) => {
      assert.is(response.headers["content-type"], "text/event-stream; charset=utf-8");
      response.setEncoding("utf8").on("data", (data: string) => (text += data));
      response.on("end", resolve);
    })
      .on("error", reject)
      .end();
  });
  await waitFor(() => text.includes("100%"));
  assert.not(text.includes("event: end"));
  await writeFile(join(dir, "co/go"), "");
  await ended;
  const events = eventsOf(text);
  assert.equal(events.at(-1), { event: "end", data: ["failed"] });
  const lines = events.slice(0, -1).flatMap(({ data }) => data);
  assert.equal(lines.slice(0, 11), [
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => `${n} ***`),
    // of a line that redraws itself the last state
    "100%",
    "last words",
  ]);
  assert.match(lines[11] ?? "", /failed: exit code 4 \(/);
  assert.is(lines.length, 12);
  // who comes later gets the same
  const later = await server.local(`/runs/${run}/log?follow=1`);
  assert.equal(
    eventsOf(later.text)
      .flatMap(({ data }) => data)
      .slice(0, -1),
    lines,
  );
  await server.stop();
});

test("the metrics count deliveries by answer, what waits and runs, and runs by result with their seconds", async () => {
  const dir = await makeYard({
    repos: { "me/site": "", "me/other": "" },
    top: "concurrency: 1",
    job: 'touch begun; until test -e go; do sleep 0.02; done; test "$HOOK_REPO" = me/site',
  });
  const server = await startHooks(dir);
  await server.push("me/site", sha(1), { id: "a" });
  await waitFor(() => existsSync(join(dir, "co/begun")));
  await server.push("me/site", sha(2));
  await server.push("me/site", sha(3));
  await server.push("me/other", sha(4));
  await server.push("me/site", sha(1), { id: "a" });
  await server.push("me/site", sha(5), { key: "wrong" });
  await http({ port: server.port }, "/hook");
  const metrics = async () => {
    const { text, headers } = await server.local("/metrics");
    assert.match(headers["content-type"] ?? "", "text/plain; version=0.0.4");
    return text.trim().split("\n");
  };
  const before = await metrics();
  for (const line of before)
    assert.match(line, /^# (?:HELP|TYPE) boatyard_\w+ .+$|^boatyard_\w+(?:\{\w+="[\w/]+"(?:,\w+="\w+")?\})? [\d.]+$/);
  for (const line of [
    'boatyard_deliveries_total{status="202"} 4',
    'boatyard_deliveries_total{status="200"} 1',
    'boatyard_deliveries_total{status="401"} 1',
    'boatyard_deliveries_total{status="405"} 1',
    "boatyard_queue_length 2",
    "boatyard_runs_active 1",
    "boatyard_draining 0",
    'boatyard_runs_total{result="superseded"} 1',
  ])
    assert.ok(before.includes(line), `${line} is not in\n${before.join("\n")}`);
  await writeFile(join(dir, "co/go"), "");
  await server.idle();
  const after = await metrics();
  for (const line of [
    "boatyard_queue_length 0",
    "boatyard_runs_active 0",
    'boatyard_runs_total{result="succeeded"} 2',
    'boatyard_runs_total{result="failed"} 1',
  ])
    assert.ok(after.includes(line), `${line} is not in\n${after.join("\n")}`);
  const seconds = after.find((line) => line.startsWith('boatyard_run_seconds_total{result="succeeded"} '));
  assert.ok(Number(seconds?.split(" ")[1]) > 0, seconds);
  // of each repo; me/other failed and has no good run
  for (const line of [
    'boatyard_repo_runs_total{repo="me/site",result="succeeded"} 2',
    'boatyard_repo_runs_total{repo="me/site",result="superseded"} 1',
    'boatyard_repo_runs_total{repo="me/other",result="failed"} 1',
    'boatyard_repo_last_run_succeeded{repo="me/site"} 1',
    'boatyard_repo_last_run_succeeded{repo="me/other"} 0',
  ])
    assert.ok(after.includes(line), `${line} is not in\n${after.join("\n")}`);
  const valueOf = (lines: string[], start: string) =>
    Number(lines.find((line) => line.startsWith(`${start} `))?.split(" ")[1]);
  const goodAt = 'boatyard_repo_last_success_timestamp_seconds{repo="me/site"}';
  assert.ok(Math.abs(valueOf(after, goodAt) - Date.now() / 1000) < 60);
  assert.ok(valueOf(after, 'boatyard_repo_last_run_seconds{repo="me/site"}') >= 0);
  assert.ok(valueOf(after, 'boatyard_repo_run_seconds_total{repo="me/site",result="succeeded"}') > 0);
  assert.not.match(after.join("\n"), 'last_success_timestamp_seconds{repo="me/other"');
  await server.stop();
  // what is known of the last runs outlives the server
  const next = await startHooks(dir);
  const { text } = await next.local("/metrics");
  assert.is(valueOf(text.split("\n"), goodAt), valueOf(after, goodAt));
  await next.stop();
});

test.run();
