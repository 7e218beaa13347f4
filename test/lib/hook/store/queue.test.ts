import * as assert from "uvu/assert";
import { test } from "uvu";
import { Queue, type Waiting } from "../../../../lib/hook/store/queue.ts";

let order = 0;
const entry = (repo: string, ref = "refs/heads/main", kind: "push" | "release" = "push"): Waiting => {
  order += 1;
  return { id: `r${order}`, repo, ref, kind, order };
};
const all = () => true;

test("one run of a repo at a time, and never more than the concurrency", () => {
  const queue = new Queue();
  for (const repo of ["a", "a", "b", "c"]) queue.add(entry(repo, `refs/heads/x${order}`));
  assert.is(queue.next(2, 0, all)?.repo, "a");
  assert.is(queue.next(2, 0, all)?.repo, "b");
  assert.is(queue.next(2, 0, all), undefined);
  assert.is(queue.running, 2);
  assert.is(queue.waiting, 2);
  assert.is(queue.next(9, 0, all)?.repo, "c");
  assert.is(queue.next(9, 0, all), undefined, "there is room, but a's other run must wait");
  assert.is(queue.waiting, 1);
});

test("of the pushes to a branch only the newest waits; tags and releases are never merged", () => {
  const queue = new Queue();
  const [one, two] = [entry("a"), entry("a")];
  assert.is(queue.add(one), undefined);
  assert.equal(queue.add(two), { superseded: one, by: two });
  assert.equal(queue.add(one), { superseded: one, by: two });
  for (const each of [
    entry("a", "refs/tags/v1"),
    entry("a", "refs/tags/v1"),
    entry("a", "refs/tags/v1", "release"),
    entry("a", "refs/tags/v1", "release"),
    entry("a", "refs/heads/dev"),
    entry("b"),
  ]) {
    assert.is(queue.add(each), undefined);
  }
  assert.is(queue.waiting, 7);
});

test("a push that runs is not superseded by one that comes", () => {
  const queue = new Queue();
  const [one, two] = [entry("a"), entry("a")];
  queue.add(one);
  assert.is(queue.next(1, 0, all), one);
  assert.is(queue.add(two), undefined);
  assert.is(queue.next(1, 0, all), undefined);
  queue.finish(one);
  assert.is(queue.next(1, 0, all), two);
});

test("repos take turns: a busy one does not starve the others", () => {
  const queue = new Queue();
  const served: string[] = [];
  for (let turn = 0; turn < 6; turn++) {
    queue.add(entry("busy", `refs/tags/${turn}`));
    if (turn < 2) queue.add(entry("quiet", `refs/tags/${turn}`));
    const next = queue.next(1, 0, all);
    if (next) {
      served.push(next.repo);
      queue.finish(next);
    }
  }
  assert.equal(served, ["busy", "quiet", "busy", "quiet", "busy", "busy"]);
});

test("a run that comes back waits in its old place until its time", () => {
  const queue = new Queue();
  const [one, two] = [entry("a", "refs/heads/x"), entry("a", "refs/heads/y")];
  queue.add(one);
  queue.add(two);
  assert.is(queue.next(1, 0, all), one);
  assert.is(queue.finish(one, { notBefore: 100 }), undefined);
  assert.is(queue.next(1, 50, all), undefined);
  assert.is(queue.nextTime(), 100);
  assert.is(queue.next(1, 100, all), one);
});

test("a run that comes back gives way to a newer push that came meanwhile", () => {
  const queue = new Queue();
  const [one, two] = [entry("a"), entry("a")];
  queue.add(one);
  queue.next(1, 0, all);
  queue.add(two);
  assert.equal(queue.finish(one, { notBefore: 0 }), { superseded: one, by: two });
  assert.is(queue.next(1, 0, all), two);
});

test("a repo that is not configured any more waits", () => {
  const queue = new Queue();
  queue.add(entry("gone"));
  assert.is(
    queue.next(1, 0, () => false),
    undefined,
  );
  assert.is(queue.waiting, 1);
});

test("a run that waits can be taken out", () => {
  const queue = new Queue();
  const [one, two] = [entry("a"), entry("a")];
  queue.add(one);
  assert.is(queue.remove(one), true);
  assert.is(queue.remove(one), false);
  assert.is(queue.add(two), undefined);
});

test.run();
