import { test } from "uvu";
import * as assert from "uvu/assert";
import { Pool, type PoolOptions } from "../../../lib/downloads/pool.ts";

/** Works on items of the given sizes and hosts; tells the most that ran at once, over all and of host `a`. */
async function most(options: PoolOptions, sizes: number[], hostOf: (index: number) => string = () => "a") {
  const active = new Map<string, number>();
  const peak = new Map<string, number>();
  const count = (name: string, by: number) => {
    active.set(name, (active.get(name) ?? 0) + by);
    peak.set(name, Math.max(peak.get(name) ?? 0, active.get(name) ?? 0));
  };
  const order: number[] = [];
  await new Pool<number>(options).run([...sizes.keys()], hostOf, async (index) => {
    order.push(index);
    count("all", 1);
    count(hostOf(index), 1);
    await new Promise((resolve) => setTimeout(resolve, 2));
    count("all", -1);
    count(hostOf(index), -1);
    return sizes[index] ?? 0;
  });
  return { all: peak.get("all"), a: peak.get("a"), order, done: order.length };
}

/** Works on items of the given sizes of one host; tells the most that ran at once after item `from` had begun. */
async function mostAfter(from: number, pool: Pool<number>, sizes: number[], also = (_index: number) => {}) {
  let active = 0;
  let peak = 0;
  const one = async (index: number) => {
    active += 1;
    if (index > from) peak = Math.max(peak, active);
    await new Promise((resolve) => setTimeout(resolve, 2));
    also(index);
    active -= 1;
    return sizes[index] ?? 0;
  };
  await pool.run([...sizes.keys()], () => "a", one);
  return peak;
}

const files = (count: number, size: number) => Array.from({ length: count }, () => size);

test("the smaller the files, the more at once: from 16 up to 50", async () => {
  assert.is((await most({}, files(200, 1000))).all, 50);
  assert.is((await most({}, files(200, 1024 * 1024))).all, 32);
  assert.is((await most({}, files(60, 5_000_000))).all, 16);
});

test("it falls again while the files are large", async () => {
  assert.is(await mostAfter(180, new Pool({}), [...files(100, 1000), ...files(100, 5_000_000)]), 16);
});

test("a number that the user gave is kept to", async () => {
  assert.is((await most({ jobs: 3 }, files(40, 1000))).all, 3);
});

test("one host gets no more than its limit, and the others do not wait for it", async () => {
  const { all, a, order, done } = await most({ jobs: 10, perHost: 2 }, files(40, 1000), (index) =>
    index < 30 ? "a" : "b",
  );
  assert.is(a, 2);
  assert.is(all, 4);
  assert.is(done, 40);
  assert.ok(order.indexOf(30) < 4);
});

test("files of one host go in the manifest's order", async () => {
  const { order } = await most({ jobs: 1 }, files(5, 1));
  assert.equal(order, [0, 1, 2, 3, 4]);
});

test("a host that says it is too much gets half", async () => {
  const pool = new Pool<number>({ jobs: 8 });
  const also = (index: number) => {
    if (index === 0) pool.slower("a");
  };
  assert.is(await mostAfter(8, pool, files(30, 1), also), 4);
});

test.run();
