// Several builders that share their runs by a real nats-server.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { connectBus } from "../../lib/bus/bus.ts";
import { nameOnBus } from "../../lib/bus/address.ts";
import { keyOfSeed, newSeed } from "../../lib/bus/nkey.ts";
import { BusStore } from "../../lib/run-store/bus-store.ts";
import { type Builders, makeBuilders, watchedJob } from "../helpers/builders.ts";
import { type HookServer, makeYard, runScript, sha, startHooks } from "../helpers/hooks.ts";
import { needsNats, startBusProxy } from "../helpers/nats.ts";
import { makeRepo } from "../helpers/repos.ts";
import { runCommand, scriptArgv } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { makeBucket, needsS3, s3, startS3Proxy } from "../helpers/s3.ts";
import { fakeSlave, knowSite } from "../helpers/slaves.ts";
import { waitFor } from "../helpers/wait.ts";

const test = suite("builders");
const testBus = testUnless(test, needsNats);
let builders: Builders | undefined;
test.after.each(async () => {
  await builders?.end();
  builders = undefined;
});

/** What builders share, as one of them sees it. */
async function openAs({ dir, url }: Builders, name: string, lease = 60_000) {
  const key = keyOfSeed((await readFile(join(dir, name, "bus.seed"), "utf8")).trim());
  assert.ok(key);
  const bus = await connectBus({ servers: [url], key, name: "other", timeout: 5000 });
  await bus.makeBucket("builds");
  await bus.makeBucket("claims", { ttl: lease });
  const [bucket, claims] = [bus.bucket("builds"), bus.bucket("claims")];
  // else a lease is waited for, in which ends what ran on a bus that has lost its disk
  await bucket.put("bucket", "known");
  return { bus, bucket, claims, close: async () => await bus.close() };
}

testBus(
  "three builders: one run of a repo at a time, the newest push wins, another one takes over from those that are killed or hang, and each shows and steers all runs",
  async () => {
    const names = ["one", "two", "three"];
    builders = await makeBuilders(names, {
      job: watchedJob,
      top: "concurrency: 1",
      repos: { "me/a": "", "me/b": "", "me/special": "runs_on: [gpu, big]" },
      own: { three: "labels: [linux, big]" },
    });
    const { dir, bus, events, start } = builders;
    const servers = new Map<string, HookServer>();
    await Promise.all(names.map(async (name) => servers.set(name, await start(name))));
    const hold = (repo: string) => writeFile(join(dir, `hold-me_${repo}`), "");
    const go = (repo: string) => rm(join(dir, `hold-me_${repo}`));
    const seen = async (text: string) =>
      await waitFor(async () => (await events()).find((line) => line.startsWith(text)), {
        what: text,
      });
    let pushes = 0;
    const push = async (repo: string, server: HookServer | undefined) => {
      pushes += 1;
      const answer = await server?.push(`me/${repo}`, sha(pushes));
      assert.is(answer?.status, 202, answer?.text);
      return { sha: sha(pushes), id: String(answer?.body.run) };
    };
    const ownerOf = (line: string) => line.split(" ").at(-1) ?? "";

    // any of them takes a delivery; where it runs, its labels say
    const special = await push("special", servers.get("one"));
    assert.is(ownerOf(await seen(`end me/special ${special.sha}`)), "three");
    await Promise.all([hold("a"), hold("b")]);
    const first = await push("a", servers.get("one"));
    const killed = ownerOf(await seen(`begin me/a ${first.sha}`));
    const onlyB = await push("b", servers.get("two"));
    const stopped = ownerOf(await seen(`begin me/b ${onlyB.sha}`));
    assert.is.not(killed, stopped);
    const waits = await push("a", servers.get("three"));
    const newest = await push("a", servers.get("one"));
    const last = names.find((name) => name !== killed && name !== stopped) ?? "";

    // one dies, one hangs: what they ran has ended before another one begins it
    await servers.get(killed)?.kill();
    servers.get(stopped)?.running.kill("SIGSTOP");
    await waitFor(async () => (await events()).at(-1)?.endsWith(` ${last}`));
    await Promise.all([go("a"), go("b")]);
    await seen(`end me/a ${newest.sha} ${last}`);
    await seen(`end me/b ${onlyB.sha} ${last}`);
    const hung = servers.get(stopped) as HookServer;
    const other = servers.get(last) as HookServer;
    hung.running.kill("SIGCONT");
    await hung.running.until(/the claim of me\/b is lost/);
    const runs = await other.idle();
    const states = new Map(runs.map(({ id, state }) => [id, state]));
    assert.equal(
      [first, waits, newest, onlyB, special].map(({ id }) => states.get(id)),
      ["superseded", "superseded", "succeeded", "succeeded", "succeeded"],
    );
    const all = await events();
    assert.equal(
      all.filter((line) => line.startsWith("overlap") || line.includes(waits.sha)),
      [],
    );
    assert.equal(
      all.filter((line) => line.startsWith(`end me/b`)).map(ownerOf),
      [last],
      "the one that hung does not go on with it",
    );

    // from the other builder: list, log, log -f, cancel, rerun
    const cli = async (command: string[], expect?: number) =>
      await runScript("hook-server", [...command, "--state", hung.state], {
        ...(expect === undefined ? {} : { expect }),
      });
    await waitFor(async () => (await hung.runs()).find(({ id }) => id === newest.id)?.state === "succeeded");
    const listed = await hung.runs();
    assert.equal(listed.map(({ id, state }) => [id, state]).sort(), runs.map(({ id, state }) => [id, state]).sort());
    assert.match((await cli(["log", newest.id], 0)).stdout, `built by ${last}`);
    assert.match((await cli(["show", onlyB.id], 0)).stdout, /attempt +2/);
    await hold("a");
    await cli(["rerun", newest.id], 0);
    const again = await waitFor(async () =>
      (await hung.runs()).find(({ state, repo }) => repo === "me/a" && state === "running"),
    );
    const from = [hung, other].find(
      (each) => !each.running.output().includes(`run ${again.id} of me/a started`),
    ) as HookServer;
    const following = runScript("hook-server", ["log", "-f", again.id, "--state", from.state]);
    const cancelled = await runScript("hook-server", ["cancel", again.id, "--state", from.state]);
    assert.is(cancelled.code, 0, cancelled.stderr);
    const followed = await following;
    assert.is(followed.code, 1);
    assert.match(followed.stdout, /built by [\s\S]*cancelled by hand/);
    await go("a");

    // the log of one that is gone
    await other.stop();
    assert.match((await cli(["log", newest.id], 0)).stdout, `built by ${last}`);

    // what cannot be kept is not accepted
    await bus.kill();
    const refused = await hung.push("me/b", sha(99));
    assert.is(refused.status, 503);
    assert.match(refused.text, "not accepted");
    assert.match((await cli(["cancel", newest.id], 1)).stderr, "not cancelled");
    await bus.start();
    await waitFor(async () => (await hung.push("me/b", sha(99))).status === 202);
    await seen(`end me/b ${sha(99)} ${stopped}`);
  },
);

testBus(
  "a run whose repo another builder has taken, or whose builder hangs, or whose bus has lost its disk, publishes nothing",
  async () => {
    const [ours, hung] = ["ours", "hung"];
    builders = await makeBuilders([ours, hung], {
      // a folder, a branch and a release, each by a script that looks for itself
      job: `
echo "begin $HOOK_REPO" >>"$all/events"
while test -e "$all/hold"; do sleep 0.05; done
cd "$HOOK_DIR"
mkdir -p site build
echo "$HOOK_SHA" | tee site/index.html >build/file
echo "from: site
to:
  web: { rsync: $all/web/$HOOK_REPO }
  pages: { git: 'file://$all/pages.git', branch: $builder }" >uploads.yml
{ ${scriptArgv("uploads").join(" ")} --retries 0 .; echo "uploads $HOOK_REPO $?" >>"$all/events"; } &
{ ${scriptArgv("release").join(" ")} pack --app site --version 1.0 --key "$all/signer.asc" --out "$all/$builder/updates"; echo "release $HOOK_REPO $?" >>"$all/events"; } &
{ ${scriptArgv("release").join(" ")} --tag v1 "$all/$builder/tagged"; echo "release.sh $HOOK_REPO $?" >>"$all/events"; } &
{ XDG_STATE_HOME="$all/$builder" ${scriptArgv("server-update").join(" ")} site --sha $HOOK_SHA --list "$all/slaves"; echo "server-update $HOOK_REPO $?" >>"$all/events"; } &
wait`,
      lease: "1m",
      repos: {
        "me/free": `runs_on: ${ours}`,
        "me/taken": `runs_on: ${ours}`,
        "me/hung": `runs_on: ${hung}`,
      },
    });
    const { dir, events, start } = builders;
    const pages = join(dir, "pages.git");
    await runCommand(["git", "init", "--quiet", "--bare", "--", pages], { expect: 0 });
    await runScript("release", ["keygen", "--out", join(dir, "signer.asc")], { expect: 0 });
    await mkdir(join(dir, "web/me"), { recursive: true });
    const slave = await fakeSlave(() => ({}));
    await writeFile(join(dir, "slaves"), `${slave.name}\n`);
    const tagged = await makeRepo({
      files: {
        "build.yml": "stages: [make]\ncommands: { make: 'true' }\n",
        "release.sh": `echo released >>${dir}/released\n`,
      },
    });
    await tagged.tag("v1");
    for (const builder of [ours, hung]) {
      await tagged.checkout(join(dir, builder, "tagged"));
      await knowSite(join(dir, builder));
    }
    // before the builders, which else wait for a lease on a bus that is new
    const { claims, close } = await openAs(builders, ours);
    const [one, two] = [await start(ours), await start(hung)];
    const seen = async (line: string) => await waitFor(async () => (await events()).includes(line), { what: line });
    const published = async () =>
      (
        await runCommand(
          [...["sh", "-c"], "find web -type f; git -C pages.git branch; ls -d */updates/VERSION; cat released"],
          { cwd: dir },
        )
      ).stdout;
    const publishers = ["uploads", "release", "release.sh", "server-update"];

    await writeFile(join(dir, "hold"), "");
    for (const repo of ["me/taken", "me/hung"]) {
      assert.is((await one.push(repo, sha(1))).status, 202);
      await seen(`begin ${repo}`);
    }
    // what another builder writes that takes it over
    const taken = nameOnBus("me/taken");
    await waitFor(async () => {
      const claim = await claims.get(taken);
      return claim && (await claims.put(taken, "other", claim.revision));
    });
    two.running.kill("SIGSTOP");
    await rm(join(dir, "hold"));
    await one.running.until(/the claim of me\/taken is lost/);
    for (const what of publishers) await seen(`${what} me/hung 1`);
    assert.is(await published(), "");
    assert.equal(slave.requests, []);
    two.running.kill("SIGCONT");

    // what is still ours is published
    assert.is((await one.push("me/free", sha(2))).status, 202);
    for (const what of publishers) await seen(`${what} me/free 0`);
    assert.match(await published(), /^web\/me\/free\/index.html\n +ours\nours\/updates\/VERSION\nreleased\n$/);
    assert.equal(
      slave.letters.map((each) => each["sha"]),
      [sha(2)],
    );

    // the bus loses its disk: what waits and what runs is lost, and that is said
    await writeFile(join(dir, "hold"), "");
    const count = async (line: string) => (await events()).filter((each) => each === line).length;
    const runs = (await one.push("me/free", sha(3))).body.run as string;
    await waitFor(async () => (await count("begin me/free")) === 2);
    const waits = (await one.push("me/free", sha(4))).body.run as string;
    await builders.bus.kill();
    await rm(join(dir, "nats"), { recursive: true });
    await builders.bus.start();
    await one.running.until(new RegExp(`the bus has lost run ${waits} of me/free`));
    await one.running.until(/the claim of me\/free is lost/);
    await rm(join(dir, "hold"));
    await waitFor(async () => (await one.idle()).length === 0);
    assert.equal([await count("uploads me/free 0"), one.running.output().includes(runs)], [1, true]);
    await close();
    await slave.close();
  },
);

testUnless(test, needsNats ?? needsS3)(
  "an upload to S3 whose repo another builder takes meanwhile sends no page and deletes nothing",
  async () => {
    const [bucket, proxy] = [await makeBucket(), await startS3Proxy()];
    await bucket.put("old.txt", "old");
    builders = await makeBuilders(["one"], {
      job: `
cd "$HOOK_DIR"
mkdir -p site
touch site/app.js site/index.html
echo 'from: site
to: { web: { s3: "s3://${bucket.name}/", endpoint: "${proxy.url}" } }' >uploads.yml
AWS_ACCESS_KEY_ID=${s3.key} AWS_SECRET_ACCESS_KEY=${s3.secret} ${scriptArgv("uploads").join(" ")} --retries 0 --delete .`,
      lease: "1m",
    });
    const { claims, close } = await openAs(builders, "one");
    const key = nameOnBus("me/site");
    let isTaken = false;
    proxy.meddle = async ({ method }) => {
      if (method !== "PUT" || isTaken) return undefined;
      isTaken = true;
      await waitFor(async () => await claims.put(key, "other", (await claims.get(key))?.revision));
      return undefined;
    };
    const one = await builders.start("one");
    const run = (await one.push("me/site", sha(1))).body.run as string;
    await one.running.until(new RegExp(`run ${run} of me/site \\w+: the claim of the repo was lost`));
    const there = async () => [...(await bucket.list()).keys()].sort();
    assert.equal(await there(), ["app.js", "old.txt"]);

    // the other one gives it back
    await claims.put(key, "", (await claims.get(key))?.revision);
    const [ended] = await one.idle();
    assert.is(ended?.state, "succeeded");
    assert.equal(await there(), ["app.js", "index.html"]);
    await Promise.all([close(), proxy.stop(), bucket.remove()]);
  },
);

testBus(
  "a cancel that comes after a run is noted on the bus and before it has started is kept, from its builder and from another",
  async () => {
    builders = await makeBuilders(["one", "two"], {
      job: watchedJob,
      repos: { "me/site": "runs_on: one" },
      lease: "1m",
    });
    const { dir, url, events, start } = builders;
    await writeFile(join(dir, "hold-me_site"), "");
    const { close } = await openAs(builders, "one");
    const proxy = await startBusProxy(url);
    const config = join(dir, "one/hooks.yml");
    const text = await readFile(config, "utf8");
    await writeFile(config, text.replace(url, `nats://127.0.0.1:${proxy.port}`));
    const [one, two] = [await start("one"), await start("two")];
    for (const [number, from] of [one, two].entries()) {
      // that a run is to be under way is the last that is written before it is
      const { sent, release } = proxy.hold((_, run) => run.includes('"state":"starting"'));
      const run = (await one.push("me/site", sha(number))).body.run as string;
      await sent;
      await waitFor(async () => (await from.local(`/runs/${run}`)).body.builder === "one");
      const cancelling = from.local(`/runs/${run}/cancel`, "POST");
      await from.local(`/runs/${run}`);
      release();
      const { status, text: answer } = await cancelling;
      assert.is(status, 202, answer);
      const ended = (await one.idle()).find(({ id }) => id === run);
      assert.equal([ended?.state, ended?.reason], ["cancelled", "cancelled by hand"]);
    }
    assert.not.ok((await events()).some((line) => line.startsWith("end")));
    await close();
    proxy.close();
  },
);

testBus("a run has an end when its builder was killed before it started it, and a newer push came", async () => {
  builders = await makeBuilders(["one", "two"], {
    job: watchedJob,
    repos: { "me/site": "runs_on: one" },
    lease: "1m",
  });
  const { dir, url, start } = builders;
  await (await openAs(builders, "one")).close();
  const proxy = await startBusProxy(url);
  const config = join(dir, "one/hooks.yml");
  const text = await readFile(config, "utf8");
  await writeFile(config, text.replace(url, `nats://127.0.0.1:${proxy.port}`));
  const [one, two] = [await start("one"), await start("two")];
  const { sent, release } = proxy.hold((_, run) => run.includes('"state":"starting"'));
  const left = (await one.push("me/site", sha(1))).body.run as string;
  await sent;
  await waitFor(async () => (await two.local(`/runs/${left}`)).body.builder === "one");
  await one.kill();
  release();
  const newer = (await two.push("me/site", sha(2))).body.run as string;
  await start("one");
  await waitFor(async () => (await two.local(`/runs/${newer}`)).body.state === "succeeded");
  const { state, by } = (await two.local(`/runs/${left}`)).body;
  assert.equal([state, by], ["superseded", newer]);
  proxy.close();
});

testBus("a builder that is started while the bus is down, or does not know it, says so", async () => {
  builders = await makeBuilders(["one"], { job: watchedJob });
  const { dir, bus } = builders;
  await writeFile(join(dir, "one/bus.seed"), newSeed(), { mode: 0o600 });
  await bus.kill();
  const { running, kill } = await startHooks(join(dir, "one"));
  await running.until(/the bus nats:\S+ cannot be used: connection refused/);
  await bus.start();
  await running.until(/the bus nats:\S+ cannot be used: it does not let this key in/);
  await kill();
});

testBus(
  "a delivery that comes to two builders is one run; concurrent changes all count; what does not read is named and left alone",
  async () => {
    builders = await makeBuilders(["one", "two"], { job: watchedJob });
    const said: string[] = [];
    const stores = await Promise.all(
      ["one", "two"].map(async (name) => {
        const { bus, bucket, close } = await openAs(builders as Builders, name);
        const store = new BusStore((text) => said.push(text));
        await store.join({ runs: bucket, payloads: await bus.objects("payloads") });
        return { store, bucket, close };
      }),
    );
    const [one, two] = stores as [(typeof stores)[0], (typeof stores)[0]];
    const accept = async ({ store }: typeof one, delivery: string) =>
      await store.accept(
        { repo: "me/site", forge: "github", event: "push", delivery },
        [{ kind: "push", ref: "refs/heads/main", sha: sha(1) }],
        Buffer.from("{}"),
      );
    for (const delivery of ["d1", "d2", "d3"]) {
      const [[here], [there]] = await Promise.all([accept(one, delivery), accept(two, delivery)]);
      assert.is(here?.id, there?.id);
    }
    assert.is([...one.store.runs()].length, 3);
    await waitFor(() => [...two.store.runs()].length === 3);
    const id = [...one.store.runs()][0]?.id ?? "";
    const add = async ({ store }: typeof one) =>
      await store.change(id, (run) => ({ ...run, attempt: run.attempt + 1 }));
    await Promise.all(Array.from({ length: 20 }, (_, index) => add(index % 2 ? one : two)));
    await waitFor(() => [one, two].every(({ store }) => store.get(id)?.attempt === 20));
    assert.is(String(await two.store.payload(id)), "{}");
    // one that failed, and is sent again, runs again
    await one.store.change(id, (run) => ({ ...run, state: "failed" }));
    const [again] = await accept(two, "d1");
    assert.is.not(again?.id, id);
    await one.bucket.put("run.other.key", "{ of a later version");
    await waitFor(() =>
      said.some((text) => text.startsWith("run.other.key in bucket builds of the bus does not read")),
    );
    await one.store.remove([id]);
    await waitFor(() => two.store.get(id) === undefined);
    for (const { close } of stores) await close();
  },
);

testBus("what a server accepted before it became a builder is handed over once, wherever it is killed", async () => {
  builders = await makeBuilders(["one", "two"], {
    job: watchedJob,
    repos: { "me/site": "runs_on: two", "me/busy": "" },
  });
  const { dir, events, start } = builders;
  await (await openAs(builders, "one")).close();
  const config = join(dir, "one/hooks.yml");
  const text = await readFile(config, "utf8");
  const alone = text.replace(/^builders:[\s\S]*?(?=^repos:)/m, "").replace(/^ +runs_on.*\n/m, "");
  await writeFile(config, `concurrency: 1\n${alone}`);
  await writeFile(join(dir, "hold-me_busy"), "");
  const server = await startHooks(join(dir, "one"));
  // a forge that gives its deliveries no ids
  const headers = { "x-github-delivery": "" };
  const push = async (repo: string, number: number) =>
    String((await server.push(repo, sha(number), { headers })).body.run);
  await push("me/busy", 1);
  await waitFor(async () => (await events()).length === 1);
  const run = await push("me/site", 2);
  await server.kill();
  await rm(join(dir, "hold-me_busy"));
  const deliveries = await readFile(join(server.state, "runs.jsonl"));
  await writeFile(config, text);
  const handedOver = async (builder: HookServer) =>
    await waitFor(async () => (await readFile(join(builder.state, "runs.jsonl"), "utf8")).includes(`"by":"${run}"`));
  const first = await start("one");
  await handedOver(first);
  await first.kill();
  // killed before it noted that the bus has it
  await writeFile(join(first.state, "runs.jsonl"), deliveries);
  const second = await start("one");
  await handedOver(second);
  await (await start("two")).idle();
  const ended = (await second.idle()).find(({ id }) => id === run);
  assert.is(ended?.state, "succeeded");
  assert.is((await events()).filter((line) => line.startsWith("begin me/site")).length, 1);
});

test("builders: is checked, with file and line", async () => {
  const dir = await makeYard({
    top: "builders:\n  bus: { url: nats://bus.example.com:4222, seed_file: secret }",
  });
  const config = join(dir, "hooks.yml");
  const check = async () => (await runScript("hook-server", ["--check", "--config", config])).stderr;
  assert.match(await check(), /hooks\.yml:4:\d+: .*is not encrypted/);
  const text = await readFile(config, "utf8");
  const urls = '["tls://bus.example.com:4222", "nats://127.0.0.1:4222"]';
  await writeFile(config, text.replace("nats://bus.example.com:4222", urls));
  assert.match(await check(), /hooks\.yml:4:\d+: .*tls:\/\/ and nats:\/\/ .*not encrypted/);
  const lone = await makeYard({ repos: { "me/site": "runs_on: big" } });
  const { code, stderr } = await runScript("hook-server", [...["--check", "--config", join(lone, "hooks.yml")]]);
  assert.is(code, 2);
  assert.match(stderr, /hooks\.yml:\d+:\d+: there is one builder only; leave runs_on out/);
});

test.run();
