// Which run is next, over a store of files and commands that end when they are told to.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Claimed, Scheduler } from "../../../../lib/hook/runs/scheduler.ts";
import type { Stop } from "../../../../lib/hook/runs/run.ts";
import { oldRuns } from "../../../../lib/hook/runs/tidy.ts";
import { FileStore } from "../../../../lib/run-store/file-store.ts";
import { hasEnded, type Run } from "../../../../lib/run-store/run-store.ts";
import { tempDir } from "../../../helpers/tmp.ts";
import { waitFor } from "../../../helpers/wait.ts";

interface Going {
  readonly run: Run;
  readonly stop: Promise<Stop>;
  end(wait?: number): Promise<void>;
}

const stores: FileStore[] = [];
test.after(() => Promise.all(stores.map((store) => store.close())) as Promise<never>);

/** A scheduler that started nothing yet. */
async function made({
  concurrency = 2,
  cancel = false,
  elsewhere = "",
  claim,
}: {
  concurrency?: number;
  cancel?: boolean;
  elsewhere?: string;
  claim?: (run: Run) => Promise<Claimed | undefined>;
} = {}) {
  const store = await FileStore.open(tempDir(), (text) => assert.unreachable(text));
  stores.push(store);
  const going: Going[] = [];
  const repos = new Map(["a", "b", "c"].map((name) => [name, { name, cancel }]));
  const scheduler = new Scheduler({
    settings: { config: { concurrency, repos } } as never,
    log: { bug: (error: unknown) => assert.unreachable(String(error)), warn: () => {} } as never,
    store,
    claim,
    outlive: true,
    onEnd: () => ({}),
    mayRun: (repo) => repo !== elsewhere,
    async run(run, { signal }) {
      await store.change(run.id, (now) => ({ ...now, state: "running", attempt: now.attempt + 1 }));
      return await new Promise<number | undefined>((resolve) => {
        const to = (state: Run["state"]) => store.change(run.id, (now) => ({ ...now, state }));
        const stop = new Promise<Stop>((stopped) => {
          signal.addEventListener("abort", () => {
            stopped(signal.reason as Stop);
            if (signal.reason === "leave") resolve(undefined);
            else void to("cancelled").then(() => resolve(undefined));
          });
        });
        const end = async (wait?: number) => {
          going.splice(going.indexOf(each), 1);
          await to(wait === undefined ? "succeeded" : "waiting");
          resolve(wait);
        };
        const each = { run, stop, end };
        going.push(each);
      });
    },
  });
  const push = async (repo: string, ref = "refs/heads/main", kind: "push" | "release" = "push") =>
    (await store.accept({ repo, forge: "github", event: kind }, [{ kind, ref, sha: undefined }], Buffer.from("{}")))[0]
      ?.id ?? "";
  const state = (id: string) => store.get(id)?.state;
  const under = (...repos: string[]) =>
    waitFor(() => (going.map(({ run }) => run.repo).join() === repos.join() ? going : undefined), {
      what: () => `${repos.join()} to be under way, but ${going.map(({ run }) => run.repo).join()}`,
    });
  return { store, scheduler, going, push, state, under };
}

test("one run of a repo at a time, never more than concurrency, and repos take turns", async () => {
  const { scheduler, push, under } = await made();
  for (const repo of ["a", "a", "b", "c"]) await push(repo, `refs/tags/${Math.random()}`);
  scheduler.start();
  let [first] = await under("a", "b");
  assert.is(scheduler.waiting, 2);
  await first?.end();
  [first] = await under("b", "c");
  await first?.end();
  await under("c", "a");
  assert.is(scheduler.running, 2);
});

test("of the pushes to a branch that wait the newest runs; tags and releases are each built", async () => {
  const { scheduler, push, state, under, store } = await made();
  const pushes = [await push("a"), await push("a"), await push("a")];
  const tags = [
    await push("a", "refs/tags/v1"),
    await push("a", "refs/tags/v1"),
    await push("a", "refs/tags/v1", "release"),
  ];
  const dev = await push("a", "refs/heads/dev");
  scheduler.start();
  await waitFor(() => pushes.slice(0, 2).every((id) => state(id) === "superseded"));
  assert.equal(
    pushes.slice(0, 2).map((id) => store.get(id)?.by),
    [pushes[2], pushes[2]],
  );
  const order: string[] = [];
  for (let left = 5; left > 0; left--) {
    const [now] = await under("a");
    order.push(now?.run.id ?? "");
    await now?.end();
  }
  assert.equal(order, [pushes[2], ...tags, dev]);
});

test("a push that runs is not superseded by one that comes; with cancel: true it is ended for it", async () => {
  for (const cancel of [false, true]) {
    const { scheduler, push, state, under } = await made({ cancel });
    const one = await push("a");
    scheduler.start();
    const [now] = await under("a");
    const two = await push("a");
    if (cancel) {
      assert.equal(await now?.stop, { why: "a newer push came, and the repo says cancel: true", by: two });
      await waitFor(() => state(two) === "running");
    } else {
      assert.is(scheduler.waitingOf("a"), 1);
      await now?.end();
      await waitFor(() => state(two) === "running");
      assert.is(state(one), "succeeded");
    }
  }
});

test("a run of another builder is cancelled while its claim is just being asked for", async () => {
  let asks = 0;
  let refuse = (_none: undefined) => {};
  const { store, scheduler, push } = await made({
    claim: () => {
      asks += 1;
      return new Promise((resolve) => (refuse = resolve));
    },
  });
  const id = await push("a");
  await store.change(id, (now) => ({ ...now, state: "running", attempt: 1, builder: "other" }));
  scheduler.start();
  await waitFor(() => asks === 1);
  assert.ok(await scheduler.cancel(id, "ada"));
  assert.is(store.get(id)?.cancelAsked, "ada", "the other one is told");
  await store.change(id, (now) => ({ ...now, state: "cancelled" }));
  refuse(undefined);
  await waitFor(() => scheduler.running === 0);
});

test("a run that waits is cancelled at once, one under way is asked to stop, one that has ended says so", async () => {
  const { scheduler, push, state, under } = await made();
  const [one, two] = [await push("a"), await push("a", "refs/tags/v1")];
  scheduler.start();
  const [now] = await under("a");
  assert.ok(await scheduler.cancel(two, "ada"));
  assert.is(state(two), "cancelled");
  assert.ok(await scheduler.cancel(one, "ada"));
  assert.equal(await now?.stop, { why: "cancelled by hand", cancelledBy: "ada" });
  await waitFor(() => state(one) === "cancelled" && scheduler.running === 0);
  assert.not(await scheduler.cancel(one, "ada"));
});

test("a run whose checkout is busy waits, and does not hold up other repos; a repo that others build is left alone", async () => {
  const { scheduler, push, state, under } = await made({ concurrency: 1, elsewhere: "c" });
  const [a, , c] = [await push("a"), await push("b"), await push("c")];
  scheduler.start();
  const [first] = await under("a");
  await first?.end(300);
  const [second] = await under("b");
  await second?.end();
  await under("a");
  assert.equal([state(a), state(c)], ["running", "waiting"]);
});

test("a server that ends starts nothing more, and leaves to the next one what takes longer than it may", async () => {
  const { scheduler, push, state, under } = await made();
  const [a, , b] = [await push("a"), await push("b"), await push("b", "refs/tags/v1")];
  scheduler.start();
  const [first, second] = await under("a", "b");
  const drained = scheduler.drain(200);
  await second?.end();
  assert.is(await first?.stop, "leave");
  await drained;
  assert.equal([state(a), state(b)], ["running", "waiting"]);
});

test("old runs go by count and by age, each repo's by its own; what is open, untold or shows what is built stays", () => {
  const day = 86_400_000;
  const now = Date.parse("2026-11-20T12:00:00Z");
  const run = (id: string, repo: string, days: number, state: Run["state"], more: Partial<Run> = {}): Run => {
    const at = new Date(now - days * day).toISOString();
    const ended = hasEnded({ state }) ? at : undefined;
    const facts = { kind: "push", ref: "refs/heads/main", sha: undefined, forge: "github", event: "push" } as const;
    return { id, repo, ...facts, accepted: at, ended, state, attempt: 1, ...more };
  };
  const runs = [
    run("1", "me/a", 50, "running"),
    run("2", "me/a", 40, "failed"),
    run("3", "me/a", 3, "succeeded"),
    run("4", "me/a", 2, "failed"),
    run("5", "me/b", 1, "succeeded"),
    run("6", "me/b", 90, "succeeded", { ref: "refs/heads/old" }),
    run("7", "me/b", 95, "succeeded", { ref: "refs/heads/old" }),
    run("8", "me/b", 99, "failed", { tell: ["message"] }),
    run("9", "me/b", 98, "succeeded", { ref: "refs/tags/v1" }),
  ];
  const ends = (keep: number, maxAge: number) => oldRuns(runs, { keep, maxAge, now }).sort().join("");
  assert.is(ends(50, 30 * day), "279");
  assert.is(ends(1, 365 * day), "279");
  assert.is(ends(50, 0), "2479");
});

test.run();
