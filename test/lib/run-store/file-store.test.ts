// The file in which a hook-server keeps its runs: what is written is there after a crash, and damage is named.
import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FileStore } from "../../../lib/run-store/file-store.ts";
import { hasEnded, type Run } from "../../../lib/run-store/run-store.ts";
import { sha } from "../../helpers/hooks.ts";
import { tempDir } from "../../helpers/tmp.ts";

const change = (n: number) => ({ kind: "push" as const, ref: "refs/heads/main", sha: sha(n) });
const source = (delivery?: string) => ({ repo: "me/site", forge: "github", event: "push", delivery });
const payloadOf = (n: number) => Buffer.from(`{"push":${n}}`);
const to = (state: Run["state"]) => (run: Run) => ({ ...run, state });
const commits = (store: FileStore) => [...store.runs()].map((run) => run.sha);

async function opened(state: string): Promise<{ store: FileStore; said: string[] }> {
  const said: string[] = [];
  return { store: await FileStore.open(state, (text) => said.push(text)), said };
}

/** A folder whose store has runs 1 to `count`, whose lines are given back too. */
async function filled(count: number): Promise<{ state: string; file: string; lines: string[] }> {
  const state = tempDir();
  const { store } = await opened(state);
  for (let n = 1; n <= count; n++) await store.accept(source(`d${n}`), [change(n)], payloadOf(n));
  await store.close();
  const file = join(state, "runs.jsonl");
  return { state, file, lines: readFileSync(file, "utf8").split("\n").slice(0, -1) };
}

test("what was accepted and changed is there at the next start: runs, deliveries, payloads of any bytes", async () => {
  const state = tempDir();
  const { store } = await opened(state);
  const bytes = Buffer.from([0xff, 0, 0x0a, 0x22]);
  const [first] = await store.accept(source("d1"), [change(1), change(2)], bytes);
  const [third] = await store.accept(source("d3"), [change(3)], payloadOf(3));
  await store.change(third?.id ?? "", to("running"));
  await store.change(third?.id ?? "", (run) => ({ ...run, state: "failed", reason: "exit code 7" }));
  // killed: nothing is closed
  const { store: again, said } = await opened(state);
  assert.equal([...again.runs()], [...store.runs()]);
  assert.equal(commits(again), [sha(1), sha(2), sha(3)]);
  assert.equal(
    [...again.open()].map((run) => run.sha),
    [sha(1), sha(2)],
  );
  assert.is(again.runOf("me/site", "d3")?.reason, "exit code 7");
  assert.is(again.runOf("me/other", "d3"), undefined);
  assert.equal(await again.payload(first?.id ?? ""), bytes);
  // it has started, and has its payload in its folder
  assert.is(await again.payload(third?.id ?? ""), undefined);
  assert.equal(said, []);
  await Promise.all([store.close(), again.close()]);
});

test("a line that a crash cut off is left out, whatever its length, and what is accepted then is kept", async () => {
  const { file, lines } = await filled(3);
  const last = Buffer.byteLength(lines[2] ?? "");
  for (const length of [1, 2, last >> 1, last - 1, last]) {
    const state = tempDir();
    const text = `${lines.slice(0, 2).join("\n")}\n${(lines[2] ?? "").slice(0, length)}`;
    writeFileSync(join(state, "runs.jsonl"), text);
    const { store, said } = await opened(state);
    assert.equal(commits(store), [sha(1), sha(2)]);
    assert.match(said.join("\n"), /byte \d+ has no end, as after a crash: it was not accepted/);
    await store.accept(source(), [change(9)], payloadOf(9));
    await store.close();
    const { store: again, said: then } = await opened(state);
    assert.equal(commits(again), [sha(1), sha(2), sha(9)]);
    assert.equal(then, []);
    await again.close();
  }
  assert.ok(existsSync(file));
});

const edit = (line: string, from: RegExp, by: string) => line.replace(from, by);
const damages: [kind: string, make: (lines: string[]) => string[] | string | Buffer, why: RegExp, lost: number[]][] = [
  ["a bit of a run", ([a = "", b = "", ...c]) => [a, edit(b, /me\/site/, "me/sitf"), ...c], /is damaged/, [2]],
  ["a bit of a payload", ([a = "", b = "", ...c]) => [a, edit(b, /push/, "pusi"), ...c], /is damaged/, [2]],
  ["a state edited by hand", ([a = "", ...b]) => [edit(a, /waiting/, "failed"), ...b], /is damaged/, [1]],
  ["a line missing", ([a = "", , ...c]) => [a, ...c], /is line 3 instead of 2: lines before it are missing/, [2]],
  ["a line twice", ([a = "", b = "", ...c]) => [a, b, b, ...c], /is line 2 instead of 3/, []],
  ["two lines swapped", ([a = "", b = "", c = "", d = ""]) => [a, c, b, d], /is line 3 instead of 2/, []],
  ["cut in the middle", ([a = "", b = "", ...c]) => [a, b.slice(0, 40) + c.join("\n")], /is damaged/, [2, 3]],
  ["zeros", ([a = "", b = "", ...c]) => [a, "\0".repeat(b.length), ...c], /is damaged/, [2]],
  ["a foreign line", (lines) => ["hello", ...lines], /is damaged/, []],
  ["not UTF-8", ([a = "", ...b]) => Buffer.from(`${a}\n\xff\xfe\n${b.join("\n")}\n`, "latin1"), /is damaged/, []],
];

for (const [kind, make, why, lost] of damages)
  test(`runs.jsonl with ${kind}: said with its byte, kept aside, and the other runs stay; the next start is quiet`, async () => {
    const { state, file, lines } = await filled(4);
    const made = make(lines);
    writeFileSync(file, Array.isArray(made) ? `${made.join("\n")}\n` : made);
    const { store, said } = await opened(state);
    const left = [1, 2, 3, 4].filter((n) => !lost.includes(n)).map(sha);
    assert.equal(commits(store).sort(), left);
    assert.match(said[0] ?? "", why);
    assert.match(said[0] ?? "", /the line at byte \d+/);
    assert.match(said.at(-1) ?? "", /runs\.jsonl\.damaged/);
    await store.accept(source(), [change(9)], payloadOf(9));
    await store.close();
    const { store: again, said: then } = await opened(state);
    assert.equal(commits(again).sort(), [...left, sha(9)].sort());
    for (const run of again.runs()) assert.ok(await again.payload(run.id));
    assert.equal(then, []);
    await again.close();
  });

test("opening changes nothing on disk: a full disk keeps no server from starting", async () => {
  const { state, file } = await filled(3);
  appendFileSync(file, '{"runs":[{"id":"cut o');
  const before = readFileSync(file);
  const { store } = await opened(state);
  assert.equal(readFileSync(file), before);
  await store.close();
});

test("plans run one after the other on what those before made: of a start and a cancel at once one wins", async () => {
  const state = tempDir();
  const { store } = await opened(state);
  const [run] = await store.accept(source(), [change(1)], payloadOf(1));
  const id = run?.id ?? "";
  const seen: string[] = [];
  store.watch((now) => seen.push(now?.state ?? "gone"));
  const ifWaiting = (state: Run["state"]) =>
    store.change(id, (now) => (now.state === "waiting" ? { ...now, state } : undefined));
  const [started, cancelled] = await Promise.all([ifWaiting("starting"), ifWaiting("cancelled")]);
  assert.is(started?.state, "starting");
  assert.is(cancelled, undefined);
  assert.equal(seen, ["starting"]);
  const counted = Array.from({ length: 50 }, () => store.change(id, (now) => ({ ...now, attempt: now.attempt + 1 })));
  await Promise.all(counted);
  assert.is(store.get(id)?.attempt, 50);
  await store.close();
});

test("a plan that throws is told so, and holds nobody up", async () => {
  const { store } = await opened(tempDir());
  const [run] = await store.accept(source(), [change(1)], payloadOf(1));
  const thrown = store.change(run?.id ?? "", () => {
    throw new Error("no");
  });
  const other = store.accept(source(), [change(2)], payloadOf(2));
  assert.is(await thrown.then(String, String), "Error: no");
  assert.is((await other).length, 1);
  await store.close();
});

test("nobody waits for a rewrite: what comes meanwhile is accepted before it ends, and is in the fresh file", async () => {
  const { state, file, lines } = await filled(1);
  const { store: filling } = await opened(state);
  const big = Buffer.from("x".repeat(10_000));
  await Promise.all(Array.from({ length: 3000 }, (_, n) => filling.accept(source(), [change(n)], big)));
  await filling.close();
  // damage makes it be written anew
  writeFileSync(file, `a foreign line\n${readFileSync(file, "utf8")}`);
  const { store } = await opened(state);
  const { ino } = statSync(file);
  const ids: string[] = [];
  for (let n = 0; statSync(file).ino === ino; n++) {
    const [run] = await store.accept(source(), [change(n)], payloadOf(n));
    await store.change(run?.id ?? "", to(n % 2 === 0 ? "running" : "cancelled"));
    ids.push(run?.id ?? "");
  }
  assert.ok(ids.length > 1, `${ids.length} were accepted while it was written`);
  await store.accept(source(), [change(7)], payloadOf(7));
  const known = [...store.runs()];
  const payloads = await Promise.all(known.map((run) => store.payload(run.id)));
  await store.close();
  const { store: again, said } = await opened(state);
  assert.is(JSON.stringify([...again.runs()]), JSON.stringify(known));
  for (const [at, run] of known.entries())
    assert.ok(payloads[at]?.equals((await again.payload(run.id)) ?? big) ?? true);
  assert.equal(payloads.at(-1), payloadOf(7));
  assert.equal(payloads[5], big);
  assert.equal(said, []);
  assert.ok(!existsSync(`${file}.new`) && lines.length === 1);
  await again.close();
});

test("what is forgotten is gone at the next start, its delivery too", async () => {
  const { state } = await filled(3);
  const { store } = await opened(state);
  const [, second] = [...store.runs()];
  await store.change(second?.id ?? "", to("cancelled"));
  await store.remove([second?.id ?? ""]);
  assert.equal(commits(store), [sha(1), sha(3)]);
  assert.is(store.runOf("me/site", "d2"), undefined);
  await store.close();
  const { store: again } = await opened(state);
  assert.equal(commits(again), [sha(1), sha(3)]);
  assert.ok([...again.runs()].every((run) => !hasEnded(run)));
  await again.close();
});

test.run();
