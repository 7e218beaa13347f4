// What is accepted, settled and remembered, and what a restarted server knows of it.
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import type { Entry, KnownRun } from "../../../../lib/hook/store/entry.ts";
import { Store } from "../../../../lib/hook/store/store.ts";
import { sha } from "../../../helpers/hooks.ts";
import { tempDir } from "../../../helpers/tmp.ts";
import { waitFor } from "../../../helpers/wait.ts";

const quiet = { warn: () => {} };
const change = (n: number, ref = "refs/heads/main") => [{ kind: "push" as const, ref, sha: sha(n) }];
const source = (delivery: string) => ({
  repo: "me/site",
  forge: "github",
  event: "push",
  delivery,
});
const ids = (entries: readonly Entry[]) => entries.map((entry) => entry.id);

async function acceptOne(store: Store, delivery: string, n = 0, payload = "{}"): Promise<Entry> {
  const [entry] = await store.accept(source(delivery), change(n), Buffer.from(payload));
  assert.ok(entry);
  return entry;
}

async function reopened(state: string, options: { remember?: number; minSettled?: number } = {}) {
  const said: string[] = [];
  const opened = await Store.open(state, { warn: (text) => said.push(text), ...options });
  return { ...opened, said };
}

test("the store forgets what is settled and keeps what waits, with its payload; the file stays small", async () => {
  const state = tempDir();
  const path = join(state, "deliveries.jsonl");
  const small = { minSettled: 10_000 };
  const { store } = await reopened(state, small);
  const first = await acceptOne(store, "first", 0, '{"payload":"of the first"}');
  for (let n = 1; n <= 100; n++) {
    const entry = await acceptOne(store, `d${n}`, n, JSON.stringify("x".repeat(900)));
    store.settle(entry, n % 2 ? "succeeded" : "superseded", n % 2 ? undefined : "by");
  }
  await waitFor(() => statSync(path).size < 60_000);
  await store.close();
  const again = await reopened(state, small);
  assert.equal(again.said, []);
  assert.equal(ids(again.waiting), [first.id]);
  assert.is((await again.store.payload(first)).toString(), '{"payload":"of the first"}');
  const state1 = again.store.runOf("me/site", "d1");
  assert.equal([state1?.state, state1?.by], ["succeeded", undefined]);
  assert.is(again.store.runOf("me/site", "d100")?.state, "superseded");
  assert.is(again.store.runOf("me/site", "d100")?.by, "by");
  assert.is(again.store.runOf("me/other", "d1"), undefined);
  await again.store.close();
});

test("what a run superseded is on disk before that run gets its payload, also when one that was put back is superseded last", async () => {
  const state = tempDir();
  const { store } = await reopened(state);
  const a = await acceptOne(store, "a");
  const b = await acceptOne(store, "b");
  const c = await acceptOne(store, "c");
  store.supersede(b, c);
  store.supersede(a, c);
  await store.payload(c);
  // killed here
  const again = await reopened(state);
  assert.equal(ids(again.waiting), [c.id]);
  assert.match(
    again.said.join(),
    /the former server was killed, or the end of the file is missing; runs without an end: 1/,
  );
  for (const name of ["a", "b"]) assert.is(again.store.runOf("me/site", name)?.by, c.id, name);
  await again.store.close();
  await store.close();
});

test("a delivery that reports several refs is known by its first run; its payload stays until all have ended", async () => {
  const state = tempDir();
  const small = { minSettled: 1000 };
  const { store } = await reopened(state, small);
  const changes = [...change(1, "refs/heads/a"), ...change(2, "refs/heads/b")];
  const [one, two] = await store.accept(source("both"), changes, Buffer.from('{"both":1}'));
  assert.ok(one && two);
  assert.is(store.runOf("me/site", "both")?.entry.id, one.id);
  store.settle(one, "succeeded");
  const { ino } = statSync(join(state, "deliveries.jsonl"));
  for (let n = 0; n < 20; n++) store.settle(await acceptOne(store, `d${n}`), "failed");
  await waitFor(() => statSync(join(state, "deliveries.jsonl")).ino !== ino);
  assert.is((await store.payload(two)).toString(), '{"both":1}');
  await store.close();
  const again = await reopened(state, small);
  assert.equal(ids(again.waiting), [two.id]);
  assert.is(again.store.runOf("me/site", "both")?.entry.id, one.id);
  assert.is(again.store.runOf("me/site", "both")?.state, "succeeded");
  assert.is((await again.store.payload(two)).toString(), '{"both":1}');
  await again.store.close();
});

test("a delivery that is sent again after it failed is known by its new run", async () => {
  const state = tempDir();
  const { store } = await reopened(state);
  const failed = await acceptOne(store, "d");
  store.settle(failed, "failed");
  await waitFor(() => new Date().toISOString() !== failed.accepted);
  const second = await acceptOne(store, "d");
  assert.is(store.runOf("me/site", "d")?.entry.id, second.id);
  await store.close();
  const again = await reopened(state);
  assert.is(again.store.runOf("me/site", "d")?.entry.id, second.id);
  await again.store.close();
});

test("what is remembered is bounded: the newest, and all that waits", async () => {
  const state = tempDir();
  const small = { remember: 20, minSettled: 5000 };
  const { store } = await reopened(state, small);
  const waits = await acceptOne(store, "waits");
  for (let n = 1; n <= 100; n++) store.settle(await acceptOne(store, `d${n}`), "succeeded");
  const isBounded = ({ length }: KnownRun[]) => length >= 20 && length <= 25;
  assert.ok(isBounded([...store.known()]));
  await store.close();
  const again = await reopened(state, small);
  assert.ok(isBounded([...again.store.known()]));
  assert.ok(again.store.runOf("me/site", "d82") && again.store.runOf("me/site", "waits"));
  assert.is(again.store.runOf("me/site", "d1"), undefined);
  assert.equal(ids(again.waiting), [waits.id]);
  await again.store.close();
});

test("a run that has ended stays known while another run of its delivery waits: it does not come back", async () => {
  const state = tempDir();
  const small = { remember: 5, minSettled: 3000 };
  const { store } = await reopened(state, small);
  const changes = [...change(1, "refs/heads/a"), ...change(2, "refs/heads/b")];
  const [one, two] = await store.accept(source("both"), changes, Buffer.from("{}"));
  assert.ok(one && two);
  store.settle(one, "succeeded");
  for (let n = 0; n < 50; n++) store.settle(await acceptOne(store, `d${n}`), "succeeded");
  await store.close();
  const again = await reopened(state, small);
  assert.equal(ids(again.waiting), [two.id]);
  await again.store.close();
});

test("the same after a rewrite and a restart", async () => {
  const state = tempDir();
  const path = join(state, "deliveries.jsonl");
  const small = { remember: 5, minSettled: 3000 };
  const fill = async (store: Store, name: string) => {
    const { ino } = statSync(path);
    for (let n = 0; statSync(path).ino === ino; n++) store.settle(await acceptOne(store, `${name}${n}`), "succeeded");
  };
  const first = await reopened(state, small);
  const changes = [...change(1, "refs/heads/a"), ...change(2, "refs/heads/b")];
  const [one, two] = await first.store.accept(source("both"), changes, Buffer.from("{}"));
  assert.ok(one && two);
  first.store.settle(one, "succeeded");
  await fill(first.store, "a");
  await first.store.close();
  const second = await reopened(state, small);
  assert.equal(ids(second.waiting), [two.id]);
  await fill(second.store, "b");
  await second.store.close();
  const third = await reopened(state, small);
  assert.equal(ids(third.waiting), [two.id]);
  await third.store.close();
});

test("more runs may wait than are remembered: those that end meanwhile are remembered all the same", async () => {
  const state = tempDir();
  const small = { remember: 20 };
  const { store } = await reopened(state, small);
  const waits: Entry[] = [];
  for (let n = 0; n < 30; n++) waits.push(await acceptOne(store, `waits${n}`));
  for (let n = 0; n < 10; n++) store.settle(await acceptOne(store, `ended${n}`), "succeeded");
  const last = await acceptOne(store, "last");
  const check = (each: Store) => {
    for (let n = 0; n < 10; n++) assert.is(each.runOf("me/site", `ended${n}`)?.state, "succeeded", `ended${n}`);
  };
  check(store);
  await store.close();
  const again = await reopened(state, small);
  check(again.store);
  assert.equal(ids(again.waiting), ids([...waits, last]));
  await again.store.close();
});

test("of more deliveries with several refs than are remembered no run that has ended comes back, also after a rewrite", async () => {
  const state = tempDir();
  const path = join(state, "deliveries.jsonl");
  const small = { remember: 20, minSettled: 30_000 };
  const { store } = await reopened(state, small);
  const changes = [...change(1, "refs/heads/a"), ...change(2, "refs/heads/b")];
  const waits: Entry[] = [];
  for (let n = 0; n < 30; n++) {
    const [one, two] = await store.accept(source(`both${n}`), changes, Buffer.from("{}"));
    assert.ok(one && two);
    store.settle(one, "succeeded");
    waits.push(two);
  }
  const { ino } = statSync(path);
  for (let n = 0; statSync(path).ino === ino; n++) store.settle(await acceptOne(store, `d${n}`), "succeeded");
  await store.close();
  for (let start = 0; start < 2; start++) {
    const again = await reopened(state, small);
    assert.equal(ids(again.waiting), ids(waits));
    await again.store.close();
  }
});

test("what waited over a restart is remembered by its age when it has ended", async () => {
  const state = tempDir();
  const path = join(state, "deliveries.jsonl");
  const small = { remember: 20, minSettled: 3000 };
  const { store } = await reopened(state, small);
  for (let n = 0; n < 30; n++) store.settle(await acceptOne(store, `d${n}`), "succeeded");
  const newest = await acceptOne(store, "newest");
  const { ino } = statSync(path);
  // ended ones are remembered beside it
  for (let n = 0; statSync(path).ino === ino; n++) store.settle(await acceptOne(store, `e${n}`), "succeeded");
  await store.close();
  const again = await reopened(state, small);
  again.store.settle(newest, "succeeded");
  for (let n = 0; n < 5; n++) again.store.settle(await acceptOne(again.store, `f${n}`), "failed");
  assert.ok(again.store.runOf("me/site", "newest"));
  await again.store.close();
});

test("thousands of deliveries in one second get ids of their own", async () => {
  const { store } = await reopened(tempDir());
  const accepting = Array.from({ length: 5000 }, (_, n) => acceptOne(store, `d${n}`));
  assert.is(new Set(ids(await Promise.all(accepting))).size, 5000);
  await store.close();
});

test("a missing file is said in a folder that was used, and not in a new one; a line that says nothing is said", async () => {
  const state = tempDir();
  const path = join(state, "deliveries.jsonl");
  const first = await reopened(state);
  assert.equal(first.said, []);
  mkdirSync(join(state, "runs"));
  await first.store.close();
  const second = await reopened(state);
  assert.equal(second.said, []);
  await second.store.close();
  writeFileSync(
    path,
    `${readFileSync(path, "utf8")}{"runs":[{"id":"../x"}]}\n{"hello":1}\n{"runs":[{"id":"20261122T101500Z-000001","repo":"me/a","ref":"refs/heads/a","kind":"push","order":1,"accepted":"yesterday"}]}\n{"stopped":"by hand"}\n`,
  );
  const edited = await reopened(state);
  assert.is(edited.said.length, 3);
  assert.match(edited.said[1] ?? "", /deliveries\.jsonl:\d: not a line of a delivery or a run$/);
  await edited.store.close();
  writeFileSync(path, "");
  const empty = await reopened(state);
  assert.match(empty.said.join(), /is empty: what waited in it is lost/);
  await empty.store.close();
});

test("a store that cannot be read at all is an error, not an empty one", async () => {
  const state = tempDir();
  mkdirSync(join(state, "deliveries.jsonl"));
  const problem = await Store.open(state, quiet).then(
    () => "",
    (error: Error) => error.message,
  );
  assert.match(problem, /deliveries\.jsonl cannot be read: .*EISDIR.*; move it away/);
});

test.run();
