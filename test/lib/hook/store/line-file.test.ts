// The file of lines that holds what was accepted: appended by many at once, rewritten meanwhile, damaged.
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { LineFile } from "../../../../lib/hook/store/line-file.ts";
import { decodeLine, encodeHead, encodeLine, type Place, readLines } from "../../../../lib/hook/store/lines.ts";
import { tempDir } from "../../../helpers/tmp.ts";
import { waitFor } from "../../../helpers/wait.ts";

const inState = () => join(tempDir(), "deliveries.jsonl");

async function opened(path: string, { minSettled, isNew = true }: { minSettled?: number; isNew?: boolean } = {}) {
  const said: string[] = [];
  const warn = (text: string) => said.push(text);
  const inUse = new Map<Place, true>();
  const kept = () => ({ places: [...inUse.keys()], heads: [] });
  const options = { isNew, warn, kept, minSettled };
  const { file, lines } = await LineFile.open(path, options);
  /** What \`append\` is told: the line stays in use. */
  const keep = (place: Place) => {
    inUse.set(place, true);
    return place;
  };
  return { file, lines, said, inUse, keep, numbers: lines.map(({ head }) => head["n"]) };
}

/** What a file says now. */
async function numbersIn(path: string): Promise<unknown[]> {
  const { file, numbers } = await opened(path);
  await file.close();
  return numbers;
}

const settled = () => {};

const lineOf = (head: object, payload: string) => Buffer.concat(encodeLine(head, Buffer.from(payload)));

/** A file of so many lines with payloads. */
async function filled(count: number): Promise<string> {
  const path = inState();
  const { file, keep } = await opened(path);
  const payload = (n: number) => Buffer.from(`{"payload":${n}}`);
  await Promise.all(Array.from({ length: count }, (_, n) => file.append({ n }, payload(n), keep)));
  await file.close();
  return path;
}

test("a payload comes back as it was sent, whatever it is, and the line is JSON", () => {
  const payloads = [
    '{"a":1.0,"a":12345678901234567890}',
    '{"x":1,"payload":{"sum":"00000000"},"sum":"12345678"}',
    "[]",
    '{\n  "pretty": true\n}',
    '{"crlf":1}\r\n',
    " plain text, \u2028 and 'quotes\" ",
    "",
    '{"sum":"00000000"}',
  ];
  for (const text of payloads) {
    const head = { runs: [{ ref: 'refs/heads/","payload":{' }], n: 1 };
    const line = lineOf(head, text);
    assert.is(line.indexOf("\n"), line.length - 1);
    JSON.parse(line.toString());
    const read = decodeLine(line.subarray(0, -1));
    assert.equal(read?.head, head, text);
    assert.is(read?.payload?.toString(), text);
    // as a person leaves it who takes the sum out
    const edited = line.toString().replace(/,"sum":"[0-9a-f]{8}"\}\n$/, "}");
    assert.equal(decodeLine(Buffer.from(edited))?.head, head, text);
    assert.ok(decodeLine(Buffer.from(`${edited}\r`))?.payload);
  }
});

test("lines and their payloads are there again after a restart", async () => {
  const path = await filled(500);
  const { file, lines, numbers, said } = await opened(path);
  assert.equal(
    numbers,
    Array.from({ length: 500 }, (_, n) => n),
  );
  const last = lines.at(-1);
  assert.is(last && (await file.payload(last.place)).toString(), '{"payload":499}');
  assert.equal(said, []);
  assert.is(statSync(path).mode & 0o777, 0o600);
  await file.close();
});

test("lines that come together share a write; notes go with it", async () => {
  const path = inState();
  const { file } = await opened(path);
  file.note({ n: "noted" });
  const order: string[] = [];
  await Promise.all([
    file.append({ n: 1 }, Buffer.from("{}"), () => order.push("stored 1")).then(() => order.push("told 1")),
    file.append({ n: 2 }, Buffer.from("{}"), () => order.push("stored 2")),
  ]);
  assert.equal(order, ["stored 1", "stored 2", "told 1"]);
  file.note({ n: "later" });
  await file.flush();
  assert.equal(await numbersIn(path), ["noted", 1, 2, "later"]);
  // nobody waits for it, and nothing comes that takes it along
  file.note({ n: "soon" });
  await waitFor(() => readFileSync(path, "utf8").includes("soon"));
  await file.close();
});

test("a last line that was cut off anywhere is left out, kept aside and said, and the next one takes its place", async () => {
  const whole = readFileSync(await filled(3));
  const start = whole.indexOf('{"n":2');
  for (let length = whole.length - 1; length > start; length -= 7) {
    const path = inState();
    writeFileSync(path, whole.subarray(0, length));
    const { file, lines, numbers, said, keep } = await opened(path);
    for (const { place } of lines) keep(place);
    // all but the newline: as an editor may leave it
    const isComplete = length === whole.length - 1;
    assert.equal(numbers, isComplete ? [0, 1, 2] : [0, 1]);
    assert.is(said.length, isComplete ? 0 : 1);
    if (!isComplete) {
      assert.match(said[0] ?? "", /deliveries\.jsonl:4: damaged or cut off, and left out; kept in .*\.unreadable$/);
      assert.is(readFileSync(`${path}.unreadable`, "utf8"), `${whole.subarray(start, length)}\n`);
    }
    await file.append({ n: "new" }, Buffer.from("{}"), keep);
    await file.close();
    const again = await opened(path);
    assert.equal(again.numbers, [...numbers, "new"]);
    assert.equal(again.said, []);
    await again.file.close();
  }
});

test("a flipped bit anywhere is said, with file and line, and costs that line alone at most", async () => {
  const path = await filled(4);
  const whole = readFileSync(path);
  const flipped = inState();
  for (let at = 0; at < whole.length; at++) {
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
    writeFileSync(flipped, bytes);
    rmSync(`${flipped}.unreadable`, { force: true });
    const said: string[] = [];
    const { lines } = await readLines(flipped, { isNew: false, warn: (text) => said.push(text) });
    const numbers = lines.map(({ head }) => head["n"]);
    const lineEnd = whole[at] === 10 || bytes[at] === 10;
    // a sum that is none any more: the line is taken as one that a person wrote, and nothing is lost
    const nothingLost = numbers.join() === "0,1,2,3";
    assert.ok(said.length === 1 || nothingLost, `byte ${at}: ${said.join(" | ")}`);
    assert.ok(numbers.length >= (lineEnd ? 2 : 3), `byte ${at}: ${numbers.join()}`);
    if (!nothingLost) assert.match(said[0] ?? "", /deliveries\.jsonl:\d/);
  }
});

test("damage of every kind is one line: missing, empty, zeros, no beginning, garbage", async () => {
  const path = await filled(3);
  const bytes = readFileSync(path);
  const second = bytes.indexOf("\n") + 1;
  const cases: [string, Buffer | undefined, RegExp, number][] = [
    ["missing", undefined, /is missing: what waited in it is lost/, 0],
    ["empty", Buffer.alloc(0), /is empty: what waited in it is lost/, 0],
    ["zeros", Buffer.alloc(5000), /jsonl:1: damaged or cut off/, 0],
    ["zeros at the end", Buffer.concat([bytes, Buffer.alloc(5000)]), /jsonl:5: damaged/, 3],
    ["zeros in front", Buffer.concat([Buffer.alloc(5000), bytes]), /jsonl:1: damaged/, 3],
    ["no beginning", bytes.subarray(second), /jsonl:1: not the first line/, 3],
    ["half a beginning", bytes.subarray(5), /jsonl:1: damaged/, 3],
    ["garbage", Buffer.from(Array.from({ length: 9000 }, (_, n) => (n * 7919) >> 3)), /jsonl:1,/, 0],
    ["not an object", Buffer.from("[]\nnull\n1\n"), /jsonl:1,2,3: damaged/, 0],
  ];
  for (const [what, content, message, left] of cases) {
    const damaged = inState();
    if (content) writeFileSync(damaged, content);
    const { file, said, numbers, keep } = await opened(damaged, { isNew: false });
    assert.is(said.length, 1, `${what}: ${said.join(" | ")}`);
    assert.match(said[0] ?? "", message, what);
    assert.is(numbers.length, left, what);
    await file.append({ n: "new" }, Buffer.from("{}"), keep);
    // a damaged file is rewritten at once: it is said once
    await waitFor(
      async () => !readFileSync(damaged).includes(0) && readFileSync(damaged, "utf8").startsWith('{"about"'),
    );
    await file.close();
    const again = await opened(damaged, { isNew: false });
    assert.equal(again.said, [], what);
    assert.is(again.numbers.at(-1), "new");
    await again.file.close();
  }
});

test("a line that cannot be kept aside stays in the file, and does not keep it from being opened", async () => {
  const path = await filled(3);
  writeFileSync(path, readFileSync(path, "utf8").replace('"n":1', '"n":7'));
  mkdirSync(`${path}.unreadable`);
  for (let start = 0; start < 2; start++) {
    const { file, said, numbers, keep } = await opened(path, { minSettled: 1 });
    assert.match(said.join(), /jsonl:3: damaged or cut off, and left out; not kept aside: .*EISDIR/);
    await file.append({ n: "new" }, Buffer.from("{}"), keep);
    await file.append({ n: "new" }, Buffer.from("{}"), keep);
    assert.ok(numbers.length >= 2);
    await file.close();
  }
  assert.match(readFileSync(path, "utf8"), '"n":7');
});

test("a file of a later version is refused, and left as it is", async () => {
  const path = inState();
  writeFileSync(path, encodeHead({ about: "x", form: 2 }));
  const before = readFileSync(path);
  try {
    await opened(path);
    assert.unreachable();
  } catch (error) {
    assert.match(String(error), /deliveries\.jsonl cannot be read: it is of a newer version/);
  }
  assert.equal(readFileSync(path), before);
});

test("under load that never ends the file is rewritten again and again; no line is lost, no payload is mixed up", async () => {
  const path = inState();
  const { file, said, keep, inUse } = await opened(path, { minSettled: 200_000 });
  const kept = new Map<number, Place>();
  let rewrites = 0;
  let inode = 0;
  let next = 0;
  const writer = async () => {
    while (rewrites < 5) {
      const n = next++;
      const payload = Buffer.from(JSON.stringify({ n, filler: "x".repeat(n % 3000) }));
      // told at once, and no sooner looked at than later
      const place = await file.append({ n }, payload, (stored) => {
        if (n % 7 === 0) kept.set(n, keep(stored));
        return stored;
      });
      if (n % 7 === 0) assert.is(JSON.parse((await file.payload(place)).toString()).n, n);
      const { ino } = statSync(path);
      if (ino !== inode) rewrites += 1;
      inode = ino;
    }
  };
  const reader = async () => {
    while (rewrites < 5) {
      for (const [n, place] of [...kept])
        if (Math.random() < 0.05) assert.is(JSON.parse((await file.payload(place)).toString()).n, n);
      await new Promise((done) => setTimeout(done, 5));
      // the oldest of what was in use are settled
      for (const [n, place] of [...kept].slice(0, Math.max(0, kept.size - 100))) {
        inUse.delete(place);
        kept.delete(n);
      }
    }
  };
  await Promise.all([...Array.from({ length: 16 }, writer), reader()]);
  await file.close();
  assert.equal(said, []);
  const again = await opened(path);
  assert.equal(again.said, []);
  const left = new Map(again.lines.map(({ head, place }) => [head["n"] as number, place]));
  for (const n of kept.keys()) {
    const place = left.get(n);
    assert.ok(place, `line ${n} is lost`);
    assert.is(JSON.parse((await again.file.payload(place)).toString()).n, n);
  }
  await again.file.close();
  assert.not.ok(existsSync(`${path}.new`));
});

test("lines that come while much that is in use is copied are in the new file, behind it", async () => {
  const path = inState();
  const { file, keep } = await opened(path, { minSettled: 30_000_000 });
  const large = Buffer.from(JSON.stringify("x".repeat(1_000_000)));
  const first = await file.append({ n: "first" }, large, keep);
  for (let n = 1; n < 25; n++) await file.append({ n }, large, keep);
  const { ino } = statSync(path);
  let rounds = 0;
  for (; statSync(path).ino === ino && rounds < 100; rounds++) {
    const settling = file.append({ n: 0 }, large, settled);
    await file.append({ n: `meanwhile ${rounds}` }, Buffer.from("{}"), keep);
    assert.is((await file.payload(first)).length, large.length);
    await settling;
  }
  assert.ok(rounds > 30 && rounds < 100, `${rounds} rounds`);
  await file.close();
  const left = (await numbersIn(path)).filter((n) => String(n).startsWith("meanwhile"));
  assert.is(left.length, rounds);
  assert.ok(statSync(path).size < 30_000_000);
});

test("a rewrite that fails leaves the file as it is, and is said", async () => {
  const path = inState();
  const { file, said, keep } = await opened(path, { minSettled: 1000 });
  mkdirSync(`${path}.new`);
  for (let n = 0; n < 20; n++)
    await file.append({ n }, Buffer.from(`"${"x".repeat(200)}"`), (place) => n === 0 && keep(place));
  await waitFor(() => said.length > 0);
  assert.match(said[0] ?? "", /deliveries\.jsonl is not rewritten now: .*(EEXIST|EISDIR)/);
  await file.close();
  assert.is((await numbersIn(path)).length, 20);
});

test("a file that became shorter meanwhile is not rewritten: what comes then is found by the next start", async () => {
  const path = inState();
  const { file, said, keep } = await opened(path, { minSettled: 1000 });
  const long = (length: number) => Buffer.from(`"${"x".repeat(length)}"`);
  const [, cut] = await Promise.all([
    file.append({ n: 0 }, long(5000), settled),
    file.append({ n: 1 }, long(1000), keep),
  ]);
  truncateSync(path, cut.at);
  await file.append({ n: 2 }, long(10), keep);
  await file.close();
  assert.match(said[0] ?? "", /is not rewritten now: it ends within the line at byte \d+/);
  assert.equal(await numbersIn(path), [0, 2]);
});

test("a file that a person edited is read: lines without sum, an empty line, no last newline", async () => {
  const path = await filled(2);
  chmodSync(path, 0o644);
  appendFileSync(path, '\n{"n": "by hand", "payload": {"ref": "refs/heads/main"}}\r\n{"n":"last"}');
  const { file, lines, numbers, said, keep } = await opened(path);
  assert.equal(numbers, [0, 1, "by hand", "last"]);
  assert.equal(said, []);
  const byHand = lines[2]?.place;
  assert.is(byHand && (await file.payload(byHand)).toString(), '{"ref":"refs/heads/main"}');
  await file.append({ n: "next" }, Buffer.from("{}"), keep);
  assert.is(statSync(path).mode & 0o777, 0o600, "payloads are for the server alone");
  await file.close();
  assert.equal(await numbersIn(path), [0, 1, "by hand", "last", "next"]);
});

test("a payload that is damaged while the server runs is not given out", async () => {
  const path = inState();
  const { file, keep } = await opened(path);
  const place = await file.append({ n: 1 }, Buffer.from('{"a":"good"}'), keep);
  const other = await file.append({ n: 2 }, Buffer.from('{"a":"good"}'), keep);
  writeFileSync(path, readFileSync(path, "utf8").replace("good", "evil"));
  const problem = await file.payload(place).catch((error: Error) => error);
  assert.match(String(problem), /deliveries\.jsonl: the line at byte \d+ is damaged; push again/);
  assert.is((await file.payload(other)).toString(), '{"a":"good"}');
  truncateSync(path, other.at + 3);
  assert.match(String(await file.payload(other).catch((error: Error) => error)), "is damaged");
  await file.close();
});

test.run();
