// Three builders in network namespaces of their own, and what can befall them: each and the bus killed -9, stopped for a
// while, cut off with both sides alive. SOAK_SCALE=1: 300 pushes to 20 repos, 20 such events. As root.
import { randomInt } from "node:crypto";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeBuilders, watchedJob } from "../helpers/builders.ts";
import { type HookServer, http, pushPayload, sha, sign } from "../helpers/hooks.ts";
import { needsNats } from "../helpers/nats.ts";
import { runCommand, scriptArgv, startCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { makeCertificate } from "../helpers/tls.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const counts = {
  pushes: Math.max(12, Math.round(300 * scale)),
  repos: Math.max(3, Math.round(20 * scale)),
  events: Math.max(4, Math.round(20 * scale)),
};
const lease = 5000;

testUnless(test, needsNats ?? needsRoot)(
  "whatever befalls three builders and their bus: each push is built or gave way, none twice at a time, the newest of each repo is published last",
  async () => {
    const tag = process.pid % 10_000;
    const bridge = `bb${tag}`;
    const net = `10.${200 + (tag % 50)}.${tag % 250}`;
    const names = ["one", "two", "three"];
    const spaceOf = (name: string) => `bs${tag}${name}`;
    const ip = (...args: string[]) => runCommand(["ip", ...args], { expect: 0 });
    const repos = Array.from({ length: counts.repos }, (_, index) => `me/r${index}`);
    await ip("link", "add", bridge, "type", "bridge");
    let builders: Awaited<ReturnType<typeof makeBuilders>> | undefined;
    try {
      await ip("addr", "add", `${net}.1/24`, "dev", bridge);
      await ip("link", "set", bridge, "up");
      for (const [index, name] of names.entries()) {
        const [space, link] = [spaceOf(name), `bl${tag}${index}`];
        await ip("netns", "add", space);
        await ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space);
        await ip("link", "set", link, "master", bridge, "up");
        await ip("-n", space, "addr", "add", `${net}.${index + 2}/24`, "dev", "eth0");
        await ip("-n", space, "link", "set", "eth0", "up");
        await ip("-n", space, "link", "set", "lo", "up");
      }
      const address = `${net}.1`;
      builders = await makeBuilders(names, {
        // what is published is told with the number of the claim, which may only grow
        job: `${watchedJob}\nsleep 0.$(($$ % 9))\necho "publish $HOOK_REPO $HOOK_SHA $builder $HOOK_FENCE" >>"$all/events"`,
        repos: Object.fromEntries(repos.map((repo) => [repo, ""])),
        lease: `${lease / 1000}s`,
        tls: { ...(await makeCertificate(address)), address },
      });
      const { start, bus, events } = builders;
      const servers = new Map<string, HookServer>();
      const begin = async (name: string) => {
        const listen = ["--listen", `${net}.${names.indexOf(name) + 2}:0`];
        const wrap = (args: string[]) =>
          startCommand(["ip", "netns", "exec", spaceOf(name), ...scriptArgv("hook-server"), ...args]);
        servers.set(name, await start(name, { args: listen, wrap }));
      };
      await Promise.all(names.map(begin));

      /** Send a push until one of them has accepted it. */
      const push = async (repo: string, commit: string) => {
        const body = JSON.stringify(pushPayload(repo, commit));
        const headers = {
          "content-type": "application/json",
          "x-github-event": "push",
          "x-github-delivery": `delivery-${commit}`,
          "x-hub-signature-256": `sha256=${sign(body)}`,
        };
        const isAccepted = async () => {
          const index = randomInt(names.length);
          const port = servers.get(names[index] ?? "")?.port ?? 0;
          const host = `${net}.${index + 2}`;
          const answer = http({ port, host } as { port: number }, "/hook", { body, headers });
          answer.catch(() => {});
          // one that is cut off never answers
          const status = await Promise.race([answer.then((each) => each.status), sleep(3000)]);
          return status === 202 || status === 200;
        };
        await waitFor(isAccepted, { timeout: 120_000, what: `${repo} ${commit} to be accepted` });
      };

      const newest = new Map<string, string>();
      const accepted: string[] = [];
      let sent = 0;
      /** One push after the other to each repo, so that it is known which is the newest. */
      const pushing = repos.map(async (repo) => {
        while (sent < counts.pushes) {
          sent += 1;
          const commit = sha(sent);
          await push(repo, commit);
          accepted.push(`${repo} ${commit}`);
          newest.set(repo, commit);
          await sleep(randomInt(400));
        }
      });
      const befall = [
        async (name: string) => {
          await servers.get(name)?.kill();
          await sleep(randomInt(2000));
          await begin(name);
        },
        async () => {
          await bus.kill();
          await sleep(randomInt(2000));
          await bus.start();
        },
        async (name: string) => {
          const link = `bl${tag}${names.indexOf(name)}`;
          await ip("link", "set", link, "down");
          await sleep(randomInt(2 * lease));
          await ip("link", "set", link, "up");
        },
        async (name: string) => {
          servers.get(name)?.running.kill("SIGSTOP");
          await sleep(randomInt(2 * lease));
          servers.get(name)?.running.kill("SIGCONT");
        },
      ];
      for (let event = 0; event < counts.events; event++) {
        await befall[event % befall.length]?.(names[randomInt(names.length)] ?? "");
        await sleep(randomInt(1000));
      }
      await Promise.all(pushing);

      const published = async () =>
        (await events()).filter((line) => line.startsWith("publish ")).map((line) => line.split(" "));
      await waitFor(
        async () => {
          const lines = await published();
          return repos.every((repo) => lines.findLast((line) => line[1] === repo)?.[2] === newest.get(repo));
        },
        { timeout: 120_000, what: "the newest push of each repo to be published last" },
      );
      const one = servers.get("one") as HookServer;
      const runs = await one.idle(120_000);
      assert.equal(
        (await events()).filter((line) => line.startsWith("overlap")),
        [],
      );
      for (const repo of repos) {
        const fences = (await published()).filter((line) => line[1] === repo).map((line) => line[4]);
        const sorted = fences.toSorted((a, b) => Number(a) - Number(b));
        assert.equal(fences, sorted, `${repo}: published under a claim that was lost`);
      }
      const known = new Map(runs.map((run) => [`${run.repo} ${run.sha}`, run.state]));
      assert.equal(
        accepted.filter((each) => !["succeeded", "superseded"].includes(known.get(each) ?? "")),
        [],
      );
    } finally {
      await builders?.end();
      for (const name of names) await runCommand(["ip", "netns", "del", spaceOf(name)]);
      await runCommand(["ip", "link", "del", bridge]);
    }
  },
);

test.run();
