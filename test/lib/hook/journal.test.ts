import {
  appendFileSync,
  cpSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { Journal } from "../../../lib/hook/journal.ts";
import { readSegment } from "../../../lib/hook/segment.ts";
import { Store } from "../../../lib/hook/store.ts";
import { sha } from "../../helpers/hooks.ts";
import { tempDir } from "../../helpers/tmp.ts";

const quiet = { warn: () => {} };
const first = "00000001.journal";

async function filled(count: number): Promise<string> {
  const folder = tempDir();
  const { journal } = await Journal.open(folder, quiet);
  await Promise.all(
    Array.from({ length: count }, (_, n) => journal.append({ n }, Buffer.from(`body\n${n}\n`))),
  );
  await journal.close();
  return folder;
}

test("records and their bodies are there again after a restart", async () => {
  const folder = await filled(500);
  const { journal, records } = await Journal.open(folder, quiet);
  assert.equal(
    records.map(({ head }) => head.n),
    Array.from({ length: 500 }, (_, n) => n),
  );
  const last = records.at(-1);
  assert.ok(last);
  assert.is((await journal.read(last.place)).toString(), "body\n499\n");
  const place = await journal.append({ n: 500 });
  assert.is(place.length, 0);
  await journal.close();
  assert.is((await Journal.open(folder, quiet)).records.length, 501);
});

test("a last record that was cut short anywhere is dropped, and the next one takes its place", async () => {
  const folder = await filled(3);
  const whole = readFileSync(join(folder, first));
  const two = readSegment(whole, 1).records[2]?.place.at ?? 0;
  for (let length = whole.length - 1; length > two - 19; length--) {
    const copy = tempDir();
    writeFileSync(join(copy, first), whole.subarray(0, length));
    const warnings: string[] = [];
    const { journal, records } = await Journal.open(copy, { warn: (text) => warnings.push(text) });
    assert.equal(
      records.map(({ head }) => head.n),
      [0, 1],
    );
    assert.equal(warnings, []);
    await journal.append({ n: "new" }, Buffer.from("x"));
    await journal.close();
    const again = await Journal.open(copy, quiet);
    assert.equal(
      again.records.map(({ head }) => head.n),
      [0, 1, "new"],
    );
  }
});

test("a damaged record in the middle is named and the others are kept", async () => {
  const folder = await filled(3);
  const path = join(folder, first);
  const text = readFileSync(path, "latin1");
  writeFileSync(path, text.replace("body\n1", "bodX\n1"), "latin1");
  const warnings: string[] = [];
  const { records } = await Journal.open(folder, { warn: (line) => warnings.push(line) });
  assert.equal(
    records.map(({ head }) => head.n),
    [0, 2],
  );
  assert.is(warnings.length, 1);
  assert.match(warnings[0] ?? "", /00000001\.journal: the record at byte \d+ is damaged/);
});

test("notes go to disk with the next record or flush", async () => {
  const folder = tempDir();
  const { journal } = await Journal.open(folder, quiet);
  journal.note({ note: 1 });
  await journal.append({ n: 1 });
  journal.note({ note: 2 });
  await journal.flush();
  const { records } = await Journal.open(folder, quiet);
  assert.equal(
    records.map(({ head }) => head),
    [{ note: 1 }, { n: 1 }, { note: 2 }],
  );
  await journal.close();
});

test("a journal that cannot be read is named and put aside, and nothing is written over it", async () => {
  const folder = await filled(3);
  writeFileSync(join(folder, first), '17 0badc0de {"of":"another version"}\n');
  const warnings: string[] = [];
  const { journal } = await Journal.open(folder, { warn: (line) => warnings.push(line) });
  await journal.append({ n: "new" });
  assert.is(warnings.length, 1);
  assert.match(
    warnings[0] ?? "",
    /00000001\.journal is not a journal .* kept as .*00000001\.unreadable$/,
  );
  assert.match(readFileSync(join(folder, "00000001.unreadable"), "latin1"), "another version");
  await journal.dropOldest();
  await journal.close();
  const { records } = await Journal.open(folder, quiet);
  assert.equal(
    records.map(({ head }) => head.n),
    ["new"],
  );
});

test("whoever waits for a note to be on disk does not wait for a flood to end", async () => {
  const folder = tempDir();
  const { journal } = await Journal.open(folder, quiet);
  let written = 0;
  let flushed = false;
  const flood = async () => {
    while (!flushed && written < 500) {
      await journal.append({ n: written++ });
    }
  };
  const floods = [flood(), flood(), flood()];
  await journal.append({ under: "way" });
  journal.note({ note: 1 });
  await journal.flush();
  flushed = true;
  assert.ok(written < 500, "the flood went on when the note was on disk");
  assert.match(readFileSync(join(folder, first), "latin1"), '{"note":1}');
  await Promise.all(floods);
  await journal.close();
});

const third = "00000003.journal";

/** A journal whose third segment stands in a file that had another use before, as a former version left it. */
async function recycled(): Promise<string> {
  const use = async (folder: string, segmentSize: number, records: [object, string][]) => {
    const { journal } = await Journal.open(folder, { ...quiet, segmentSize });
    for (const [head, body] of records) await journal.append(head, Buffer.from(body));
    await journal.dropOldest();
    await journal.close();
  };
  const before = tempDir();
  const former = [0, 1, 2, 3, 4].map((n): [object, string] => [{ former: n }, "y".repeat(50)]);
  await use(before, 10_000, former);
  const folder = tempDir();
  const filler = "x".repeat(1000);
  await use(folder, 1000, [
    [{ n: 1 }, filler],
    [{ n: 2 }, filler],
    [{ n: 3 }, ""],
  ]);
  assert.equal(readdirSync(folder).sort(), ["00000002.journal", third]);
  const bytes = readFileSync(join(folder, third));
  const rest = readFileSync(join(before, first)).subarray(bytes.length);
  writeFileSync(join(folder, third), Buffer.concat([bytes, rest]));
  writeFileSync(join(folder, "00000001.spare"), "boatyard-journal spare\n");
  return folder;
}

test("what stood in a file that a former version used again does not come back", async () => {
  const folder = await recycled();
  assert.match(readFileSync(join(folder, third), "latin1"), '{"former":4}');
  const warnings: string[] = [];
  const again = await Journal.open(folder, { warn: (line) => warnings.push(line) });
  assert.equal(warnings, []);
  assert.equal(readdirSync(folder).sort(), ["00000002.journal", third]);
  assert.equal(
    again.records.map(({ head }) => head),
    [{ n: 2 }, { n: 3 }],
  );
  await again.journal.append({ after: true });
  await again.journal.close();
  assert.not.match(readFileSync(join(folder, third), "latin1"), "former");
  const { records } = await Journal.open(folder, quiet);
  assert.equal(
    records.slice(-2).map(({ head }) => head),
    [{ n: 3 }, { after: true }],
  );
});

test("a crash of a former version at any step of using a file again leaves no record of its former use", async () => {
  const folder = await recycled();
  const bytes = readFileSync(join(folder, third));
  const spare = Buffer.concat([Buffer.from("boatyard-journal spare\n"), bytes.subarray(23)]);
  const end = readSegment(bytes, 3).length;
  const steps: [string, (copy: string) => void, number[]][] = [
    [
      "void, and not renamed yet",
      (copy) => {
        renameSync(join(copy, "00000002.journal"), join(copy, third));
        writeFileSync(join(copy, "00000002.journal"), spare);
      },
      [2],
    ],
    ["renamed, and nothing written yet", (copy) => writeFileSync(join(copy, third), spare), [2]],
    [
      "the last write came to the disk in part",
      (copy) => {
        const torn = Buffer.from(bytes);
        torn.fill(0, end - 20, end);
        writeFileSync(join(copy, third), torn);
      },
      [2],
    ],
  ];
  for (const [step, make, left] of steps) {
    const copy = tempDir();
    cpSync(folder, copy, { recursive: true });
    make(copy);
    const warnings: string[] = [];
    const opened = await Journal.open(copy, { warn: (line) => warnings.push(line) });
    assert.equal(warnings, [], step);
    assert.equal(
      opened.records.map(({ head }) => head.n),
      left,
      step,
    );
    await opened.journal.append({ next: step });
    await opened.journal.close();
    const next = (await Journal.open(copy, quiet)).records.at(-1)?.head;
    assert.equal(next, { next: step }, step);
  }
});

test("a payload that looks like records brings none in, also beside a damaged one", async () => {
  const folder = await filled(1);
  const forged = readFileSync(join(folder, first), "latin1").split("\n").slice(1).join("\n");
  const other = tempDir();
  const { journal } = await Journal.open(other, quiet);
  await journal.append({ n: "a" }, Buffer.from(`{}\n${forged}`));
  await journal.append({ n: "b" });
  await journal.close();
  const path = join(other, first);
  writeFileSync(path, readFileSync(path, "latin1").replace('"n":"a"', '"n":"c"'), "latin1");
  const warnings: string[] = [];
  const { records } = await Journal.open(other, { warn: (line) => warnings.push(line) });
  assert.equal(
    records.map(({ head }) => head.n),
    ["b"],
  );
  assert.is(warnings.length, 1);
});

const change = (n: number, ref = "refs/heads/main") => [
  { kind: "push" as const, ref, sha: sha(n) },
];
const source = (delivery: string) => ({
  repo: "me/site",
  forge: "github",
  event: "push",
  delivery,
});

test("the spool forgets what is settled and keeps what waits, with its payload", async () => {
  const state = tempDir();
  const small = { ...quiet, segmentSize: 1000 };
  const { store } = await Store.open(state, small);
  const waits = await store.accept(source("first"), change(0), Buffer.from("payload of the first"));
  for (let n = 1; n <= 100; n++) {
    const [entry] = await store.accept(source(`d${n}`), change(n), Buffer.from("x".repeat(300)));
    assert.ok(entry);
    store.settle(entry, n % 2 ? "succeeded" : "superseded", n % 2 ? undefined : "by");
    await store.tidy();
  }
  const segments = readdirSync(join(state, "spool")).filter((name) => name.endsWith(".journal"));
  assert.ok(segments.length <= 10, `${segments.length} segments are left`);
  await store.close();
  const again = await Store.open(state, small);
  assert.equal(
    again.waiting.map((entry) => entry.id),
    waits.map((entry) => entry.id),
  );
  const [left] = again.waiting;
  assert.ok(left);
  assert.is((await again.store.payload(left)).toString(), "payload of the first");
  assert.is(again.store.seen.delivery("me/site", "d1")?.state, "succeeded");
  assert.is(again.store.seen.delivery("me/site", "d100")?.state, "superseded");
  assert.is(again.store.seen.delivery("me/other", "d1"), undefined);
  await again.store.close();
});

test("a run that is settled while it moves to a newer segment does not wait at the next start", async () => {
  const state = tempDir();
  const small = { ...quiet, segmentSize: 100 };
  const { store } = await Store.open(state, small);
  const [old] = await store.accept(source("old"), change(0), Buffer.from("old"));
  for (let n = 1; n < 12; n++) {
    const [entry] = await store.accept(source(`d${n}`), change(n), Buffer.from("x"));
    if (entry) store.settle(entry, "succeeded");
  }
  assert.ok(old && store.crowded);
  const read = store.payload.bind(store);
  store.payload = async (entry) => {
    const payload = await read(entry);
    store.settle(entry, "superseded", "by");
    return payload;
  };
  await store.tidy();
  await store.close();
  const again = await Store.open(state, small);
  assert.equal(again.waiting, []);
  assert.is(again.store.seen.delivery("me/site", "old")?.state, "superseded");
  await again.store.close();
});

test("what a run superseded is known after a restart, also when a run that was put back is superseded last", async () => {
  const state = tempDir();
  const { store } = await Store.open(state, quiet);
  const entries = [];
  for (const name of ["a", "b", "c"])
    entries.push(...(await store.accept(source(name), change(0), Buffer.from(name))));
  const [a, b, c] = entries;
  assert.ok(a && b && c);
  store.supersede(b, c);
  store.supersede(a, c);
  await store.payload(c);
  store.settle(c, "succeeded");
  await store.close();
  const again = await Store.open(state, quiet);
  assert.equal(again.waiting, []);
  for (const name of ["a", "b"])
    assert.is(again.store.seen.delivery("me/site", name)?.state, "superseded", name);
  await again.store.close();
});

test("a list of superseded runs, as a former version wrote it, is read", async () => {
  const state = tempDir();
  const { store } = await Store.open(state, quiet);
  const entries = [];
  for (const name of ["a", "b", "c"])
    entries.push(...(await store.accept(source(name), change(0), Buffer.from(name))));
  await store.close();
  const [a, b, c] = entries.map((entry) => entry.id);
  const { journal } = await Journal.open(join(state, "spool"), quiet);
  await journal.append({ run: c, superseded: [a, b] });
  await journal.close();
  const again = await Store.open(state, quiet);
  assert.equal(
    again.waiting.map((entry) => entry.id),
    [c],
  );
  assert.is(again.store.seen.delivery("me/site", "a")?.by, c);
  await again.store.close();
});

test("a file that comes back after a power cut brings no run back that has ended", async () => {
  const state = tempDir();
  const folder = join(state, "spool");
  const small = { ...quiet, segmentSize: 200 };
  const { store } = await Store.open(state, small);
  const one = async (n: number) => {
    const [entry] = await store.accept(source(`d${n}`), change(n), Buffer.alloc(500, "z"));
    assert.ok(entry);
    store.settle(entry, "succeeded");
  };
  await one(1);
  const path = join(folder, first);
  const former = readFileSync(path);
  for (let n = 2; n < 5; n++) {
    await one(n);
    await store.tidy();
  }
  await store.close();
  assert.not(readdirSync(folder).includes(first));
  writeFileSync(path, former);
  const again = await Store.open(state, small);
  assert.equal(again.waiting, []);
  await again.store.close();
});

test("many large payloads that wait are not written anew again and again", async () => {
  const state = tempDir();
  const small = { ...quiet, segmentSize: 1000 };
  const { store } = await Store.open(state, small);
  const waits: string[] = [];
  for (let n = 0; n < 60; n++) {
    const [entry] = await store.accept(source(`d${n}`), change(n), Buffer.alloc(1000, "z"));
    waits.push(entry?.id ?? "");
    await store.tidy();
  }
  const segments = readdirSync(join(state, "spool")).map((name) => Number.parseInt(name, 10));
  assert.ok(Math.max(...segments) < 4 * 60, `${Math.max(...segments)} segments were written`);
  await store.close();
  const again = await Store.open(state, small);
  assert.equal(
    again.waiting.map((entry) => entry.id),
    waits,
  );
  await again.store.close();
});

test("a delivery that reports several refs is known by its first run, also after a restart", async () => {
  const state = tempDir();
  const { store } = await Store.open(state, quiet);
  const changes = [...change(1, "refs/heads/a"), ...change(2, "refs/heads/b")];
  const [one] = await store.accept(source("both"), changes, Buffer.from("x"));
  assert.is(store.seen.delivery("me/site", "both")?.run, one?.id);
  await store.close();
  const again = await Store.open(state, quiet);
  assert.is(again.waiting.length, 2);
  assert.is(again.store.seen.delivery("me/site", "both")?.run, one?.id);
  await again.store.close();
});

test("a run that stands in two segments after a crash is one, and its end is known by its delivery", async () => {
  const state = tempDir();
  const folder = join(state, "spool");
  const small = { ...quiet, segmentSize: 100 };
  const { store } = await Store.open(state, small);
  const [old] = await store.accept(source("old"), change(0), Buffer.from("old"));
  const former = readFileSync(join(folder, first));
  for (let n = 1; n < 12; n++) {
    const [entry] = await store.accept(source(`d${n}`), change(n), Buffer.from("x"));
    if (entry) store.settle(entry, "succeeded");
  }
  await store.tidy();
  await store.close();
  writeFileSync(join(folder, first), former);
  const again = await Store.open(state, small);
  const [left, ...others] = again.waiting;
  assert.is(left?.id, old?.id);
  assert.equal(others, []);
  if (left) again.store.settle(left, "failed");
  assert.is(again.store.seen.delivery("me/site", "old")?.state, "failed");
  await again.store.close();
});

test("what is remembered of deliveries is bounded", async () => {
  const state = tempDir();
  const small = { ...quiet, segmentSize: 500, remember: 20 };
  const { store } = await Store.open(state, small);
  for (let n = 1; n <= 195; n++) {
    const [entry] = await store.accept(source(`d${n}`), change(n), Buffer.from("y".repeat(200)));
    if (entry) store.settle(entry, "succeeded");
    await store.tidy();
  }
  const remembered = [...store.seen.all()].length;
  assert.ok(remembered >= 20 && remembered <= 23, `${remembered}`);
  await store.close();
  const again = await Store.open(state, small);
  assert.is(again.store.seen.delivery("me/site", "d1"), undefined);
  assert.ok(again.store.seen.delivery("me/site", "d195"));
  const lines = readFileSync(join(state, "spool/seen.jsonl"), "utf8").split("\n").length;
  assert.ok(lines <= 41, `${lines} lines`);
  assert.ok(again.store.seen.delivery("me/site", "d176"), "the newest 20");
  await again.store.close();
  appendFileSync(join(state, "spool/seen.jsonl"), '{"run":"torn');
  const torn = await Store.open(state, small);
  for (let n = 196; n <= 199; n++) {
    const [entry] = await torn.store.accept(
      source(`d${n}`),
      change(n),
      Buffer.from("y".repeat(200)),
    );
    if (entry) torn.store.settle(entry, "succeeded");
    await torn.store.tidy();
  }
  await torn.store.close();
  const last = await Store.open(state, small);
  for (let n = 180; n <= 199; n++) assert.ok(last.store.seen.delivery("me/site", `d${n}`), `d${n}`);
  await last.store.close();
});

test("thousands of deliveries in one second get ids of their own", async () => {
  const { store } = await Store.open(tempDir(), quiet);
  const ids = new Set<string>();
  for (let round = 0; round < 20; round++) {
    const entries = await Promise.all(
      Array.from({ length: 500 }, (_, n) =>
        store.accept(source(`${round}-${n}`), change(n), Buffer.from("x")),
      ),
    );
    for (const [entry] of entries) ids.add(entry?.id ?? "");
  }
  assert.is(ids.size, 10_000);
  await store.close();
});

test.run();
