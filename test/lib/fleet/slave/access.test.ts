import { appendFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Jobs } from "../../../../lib/fleet/slave/jobs.ts";
import { Nonces } from "../../../../lib/fleet/slave/taken-once.ts";
import { tempDir } from "../../../helpers/tmp.ts";

test("a nonce is taken once, also after a restart", async () => {
  const file = join(tempDir(), "state", "nonces.txt");
  const time = Math.floor(Date.now() / 1000);
  const [one, two] = ["1".repeat(32), "2".repeat(32)];
  const first = new Nonces(file);
  await first.open();
  assert.ok(await first.take(one, time));
  assert.not.ok(await first.take(one, time));
  const second = new Nonces(file);
  await second.open();
  assert.not.ok(await second.take(one, time));
  assert.ok(await second.take(two, time));
});

test("nonces whose time is past are forgotten, and a torn last line harms nothing", async () => {
  const file = join(tempDir(), "nonces.txt");
  const [old, fresh] = ["3".repeat(32), "4".repeat(32)];
  await appendFile(file, `1000 ${old}\n99999999999 ${fresh}\n9999999`);
  const nonces = new Nonces(file);
  await nonces.open();
  assert.is(await readFile(file, "utf8"), `99999999999 ${fresh}\n`);
  assert.not.ok(await nonces.take(fresh, 0));
});

test("the file of nonces does not grow with those that are past", async () => {
  const file = join(tempDir(), "nonces.txt");
  const nonces = new Nonces(file);
  await nonces.open();
  const takes = Array.from({ length: 1100 }, (_, at) => nonces.take(String(at).padStart(32, "0"), 1000));
  assert.ok((await Promise.all(takes)).every((taken) => taken));
  const { length } = (await readFile(file, "utf8")).split("\n");
  assert.ok(length < 200, `${length} lines`);
});

test("a nonce that cannot be written does not count", async () => {
  const file = join(tempDir(), "nonces.txt");
  const nonces = new Nonces(file);
  await nonces.open();
  await rm(file);
  await mkdir(file);
  const nonce = "5".repeat(32);
  const time = Math.floor(Date.now() / 1000);
  const error = await nonces.take(nonce, time).catch((reason: unknown) => reason);
  assert.is((error as { status: number }).status, 503);
  await rm(file, { recursive: true });
  assert.ok(await nonces.take(nonce, time));
});

test("what a full disk left of a nonce spoils none of those that come after it", async () => {
  const file = join(tempDir(), "nonces.txt");
  const first = new Nonces(file);
  await first.open();
  const [one, two] = ["6".repeat(32), "7".repeat(32)];
  const time = Math.floor(Date.now() / 1000);
  assert.ok(await first.take(one, time));
  await appendFile(file, `\n${time} 77`);
  assert.ok(await first.take(two, time));
  const second = new Nonces(file);
  await second.open();
  assert.not.ok(await second.take(one, time));
  assert.not.ok(await second.take(two, time));
});

test("requests that come at once and cannot be written down are all refused", async () => {
  const dir = join(tempDir(), "jobs");
  const run = () => Promise.resolve({ sha: "a".repeat(40) });
  const jobs = new Jobs({ dir, jobs: 1, queue: 10, run, onError: () => {} });
  await jobs.open();
  await rm(dir, { recursive: true });
  const [repo, sha] = ["site", "b".repeat(40)];
  const wanted = [{ repo }, { repo }, { repo, sha }];
  const told = await Promise.allSettled(wanted.map((each) => jobs.request(each)));
  for (const each of told) assert.is(each.status === "rejected" && (each.reason as { status: number }).status, 503);
  assert.equal(jobs.all(), []);
  assert.equal(jobs.counts, { running: 0, queued: 0 });
});

test("after a restart the last word counts, too, also when two came in one second", async () => {
  const dir = join(tempDir(), "jobs");
  await mkdir(dir);
  const second = "20261120T101500";
  const [one, two, three] = ["1", "2", "3"].map((each) => each.repeat(40)) as [string, ...string[]];
  const write = (job: string, state: string, wanted: string, ms: string) => {
    const at = `2026-11-20T10:15:00.${ms}Z`;
    return writeFile(join(dir, `${job}.json`), JSON.stringify({ job, repo: "site", state, wanted, at }));
  };
  await write(`${second}Z-ffffff`, "running", one, "100");
  await write(`${second}Z-000000`, "queued", two ?? "", "900");
  const done: (string | undefined)[] = [];
  const run = ({ wanted }: { wanted?: string | undefined }) => {
    done.push(wanted);
    return Promise.resolve({ sha: wanted ?? "" });
  };
  const jobs = new Jobs({ dir, jobs: 1, queue: 10, run, onError: () => {} });
  await jobs.open();
  const last = await jobs.request({ repo: "site", sha: three });
  await jobs.wait(last, 60_000, new AbortController().signal);
  assert.equal(done, [one, three]);
});

test.run();
