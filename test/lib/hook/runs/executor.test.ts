// A run that is asked to end before its process is there ends, whatever it was about to do.
import { existsSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask } from "../../../../lib/core/mask.ts";
import type { Cgroups } from "../../../../lib/exec/cgroups.ts";
import { currentUser } from "../../../../lib/exec/users.ts";
import type { RepoConfig, Settings } from "../../../../lib/hook/config/config.ts";
import type { Entry } from "../../../../lib/hook/store/entry.ts";
import { Executor, type Result } from "../../../../lib/hook/runs/executor.ts";
import { Records, type RunRecord } from "../../../../lib/hook/runs/records.ts";
import { Scheduler } from "../../../../lib/hook/runs/scheduler.ts";
import { Metrics, type ServerLog } from "../../../../lib/hook/telemetry/telemetry.ts";
import { tempDir } from "../../../helpers/tmp.ts";

const entry: Entry = {
  ...{ id: "20261122T101500Z-000001", repo: "me/site", forge: "github", event: "push" },
  ...{ kind: "push", ref: "refs/heads/main", sha: undefined, order: 1 },
  accepted: "2026-11-22T10:15:00.000Z",
};
const full = Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
const byHand = { why: "cancelled by hand", state: "cancelled", cancelledBy: "me" } as const;

/** An executor on real files, of one repo, whose payload comes when the test says so. */
async function makeExecutor(job: string) {
  const dir = tempDir();
  const script = join(dir, "job");
  await writeFile(script, `#!/bin/sh\n${job}\n`);
  await chmod(script, 0o755);
  const said: string[] = [];
  let onLine = (_text: string) => {};
  const say = (text: unknown) => {
    said.push(String(text));
    onLine(String(text));
  };
  const repo = {
    ...{ name: entry.repo, dir, user: currentUser(), on: { push: script }, afterwards: [] },
    ...{ timeout: 60_000, limits: {} },
  } as unknown as RepoConfig;
  const repos = new Map<string, RepoConfig>();
  const config = { repos, forges: [], maxLog: 1e6, concurrency: 2 };
  const settings = { config, mask: createMask([]) } as unknown as Settings;
  const log = { info: say, warn: say, bug: say } as unknown as ServerLog;
  const records = await Records.open(dir, { warn: say });
  let onPayload: (payload: Promise<Buffer>) => void = () => {};
  const payload = new Promise<Buffer>((resolve) => (onPayload = resolve));
  const executor = new Executor({
    ...{ settings, records, log, metrics: new Metrics(), guard: undefined },
    cgroups: { make: async () => undefined, find: async () => ({}) } as unknown as Cgroups,
    payloadOf: () => payload,
    onSuccess: async () => {},
    tellingOf: () => [],
    onRunning: () => {},
  });
  return {
    ...{ dir, repo, repos, settings, log, records, executor, said },
    onPayload,
    /** Told of each line of the server's log. */
    listen: (told: (text: string) => void) => (onLine = told),
  };
}

function stateOf(result: Result): unknown[] {
  if (!("ended" in result)) return Object.keys(result);
  const { state, reason, cancelledBy } = result.ended;
  return [state, reason, cancelledBy];
}

const cancelled = ["cancelled", byHand.why, byHand.cancelledBy];

test("a run that is cancelled while it is prepared starts nothing", async () => {
  const { dir, repo, records, executor, onPayload } = await makeExecutor("touch started");
  const running = executor.run(entry, repo);
  assert.ok(executor.stop(entry.id, byHand));
  onPayload(Promise.resolve(Buffer.from("{}")));
  assert.equal(stateOf(await running), cancelled);
  assert.is(records.get(entry.id)?.argv, undefined);
  assert.not.ok(existsSync(join(dir, "started")));
  assert.not.ok(executor.stop(entry.id, byHand));
});

test("a run that meets a full disk before it starts waits; one that was cancelled meanwhile does not", async () => {
  for (const isCancelled of [false, true]) {
    const { repo, executor, onPayload } = await makeExecutor("true");
    const running = executor.run(entry, repo);
    if (isCancelled) assert.ok(executor.stop(entry.id, byHand));
    onPayload(Promise.reject(full));
    assert.equal(stateOf(await running), isCancelled ? cancelled : ["notBefore"]);
  }
});

test("a run that is cancelled when it has found its checkout busy does not wait for another attempt", async () => {
  const { repo, executor, onPayload, listen } = await makeExecutor("exit 3");
  listen((text) => {
    if (text.includes("the checkout is busy")) assert.ok(executor.stop(entry.id, byHand));
  });
  onPayload(Promise.resolve(Buffer.from("{}")));
  assert.equal(stateOf(await executor.run(entry, repo)), cancelled);
});

test("a run that waits and is cancelled does not have its turn meanwhile; where that fails it waits on", async () => {
  for (const isFull of [false, true]) {
    const made = await makeExecutor("touch started");
    const { dir, repo, repos, executor, onPayload, said } = made;
    const ended: RunRecord[] = [];
    const scheduler = new Scheduler({
      ...made,
      onSuperseded: () => {},
      onEnded: (_entry, record) => ended.push(record),
    });
    scheduler.add(entry);
    const cancelling = scheduler.cancel(entry.id, "me").catch((error: unknown) => error);
    const again = scheduler.cancel(entry.id, "me");
    repos.set(repo.name, repo);
    scheduler.schedule();
    onPayload(isFull ? Promise.reject(full) : Promise.resolve(Buffer.from("{}")));
    assert.is(await cancelling, isFull ? full : true);
    assert.is(await again, true);
    if (!isFull) assert.not.ok(executor.stop(entry.id, byHand));
    assert.equal([...scheduler.queue.entries()], isFull ? [entry] : []);
    assert.equal(
      ended.map(({ state }) => state),
      isFull ? [] : ["cancelled"],
    );
    await scheduler.drain(0);
    assert.not.ok(existsSync(join(dir, "started")));
    assert.equal(
      said.filter((line) => /error/i.test(line)),
      [],
    );
  }
});

test.run();
