import { test } from "uvu";
import * as assert from "uvu/assert";
import { addressesOf, chooseTargets, expandRanges, parseList, planBatches } from "../../../../lib/fleet/master/list.ts";

const urls = (text: string) => parseList(text, "list").targets.map(({ url }) => url.href);

test("hosts, ports, addresses and URLs become endpoints", () => {
  const cases: [string, string][] = [
    ["web1", "http://web1:9999/get/"],
    ["web1.example.com:80", "http://web1.example.com/get/"],
    ["10.0.0.7", "http://10.0.0.7:9999/get/"],
    ["10.0.0.7:9001", "http://10.0.0.7:9001/get/"],
    ["[2001:db8::1]:9001", "http://[2001:db8::1]:9001/get/"],
    ["[::1]", "http://[::1]:9999/get/"],
    ["https://web1/boat/get/?key=a", "https://web1/boat/get/?key=a"],
    ["  web1  # the first", "http://web1:9999/get/"],
  ];
  for (const [line, url] of cases) assert.equal(urls(line), [url], line);
});

test("ranges are written out, with their leading zeros", () => {
  assert.equal(expandRanges("web[08-11].x"), ["web08.x", "web09.x", "web10.x", "web11.x"]);
  assert.equal(expandRanges("r[1-2]n[1,3]"), ["r1n1", "r1n3", "r2n1", "r2n3"]);
  assert.equal(urls("web[01-20].example.com").length, 20);
});

test("comments, blank lines and groups", () => {
  const { targets } = parseList("# all\na\n\n[eu]\nb # one\nc\n[us]\nd\n", "list");
  assert.equal(
    targets.map(({ name, group }) => `${group}/${name}`),
    ["/a", "eu/b", "eu/c", "us/d"],
  );
  assert.equal(
    chooseTargets(targets, "eu").map(({ name }) => name),
    ["b", "c"],
  );
  assert.throws(() => chooseTargets(targets, "ue"), /no group "ue".*did you mean "eu"/);
});

test("a target that is there twice is told, with both lines, and asked once", () => {
  const { targets, duplicates } = parseList("a\nb\na:9999\n", "list");
  assert.equal(duplicates, ["list:3: a:9999 is there already (line 1); it is asked once"]);
  assert.is(targets.length, 2);
});

test("a slave in two groups is no mistake, and is asked once when all are", () => {
  const { targets, duplicates } = parseList("[x]\na\n[y]\na\n", "list");
  assert.equal(duplicates, []);
  assert.is(chooseTargets(targets).length, 1);
  assert.is(chooseTargets(targets, "y").length, 1);
});

test("of a file that is no list twenty lines are named", () => {
  const lines = Array.from({ length: 25 }, (_, index) => `a b${index}`);
  assert.throws(
    () => parseList(lines.join("\n"), "list"),
    ({ message }: Error) => /list:20: .*\nand 5 lines more$/.test(message),
  );
});

test("every bad line is named", () => {
  const bad = [
    "a b",
    "host:0",
    "host:70000",
    "-x",
    "10.0.0.256",
    "ftp://x/",
    "http://u:p@x/",
    "[::zz]:1",
    "web[9-1]",
    "http://",
    "a/b",
    "[",
  ];
  for (const line of bad) assert.throws(() => parseList(line, "list"), /^list:1: /m, line);
  try {
    parseList(bad.join("\n"), "list");
    assert.unreachable();
  } catch (error) {
    assert.is((error as Error).message.split("\n").length, bad.length);
  }
});

test("the address of the status stands beside the endpoint", () => {
  const cases: [string, string, string][] = [
    ["web", "http://web:9999/get/?repo=r", "http://web:9999/status"],
    ["https://w/boat/get/", "https://w/boat/get/?repo=r", "https://w/boat/status"],
    ["http://w/", "http://w/?repo=r", "http://w/status"],
    ["http://w/target/?k=1", "http://w/target/?k=1&repo=r", "http://w/target/status?k=1"],
  ];
  for (const [line, update, status] of cases) {
    const [target] = parseList(line, "list").targets;
    assert.ok(target);
    const addresses = addressesOf(target);
    assert.is(addresses.update("r").href, update);
    assert.is(addresses.status.href, status);
  }
});

test("batches rise to all targets", () => {
  assert.equal(planBatches(["1", "10%", "100%"], 50), [1, 5, 50]);
  assert.equal(planBatches(["10%"], 5), [1, 5]);
  assert.equal(planBatches([], 5), [5]);
  assert.equal(planBatches(["100", "1"], 5), [1, 5]);
  assert.throws(() => planBatches(["x"], 5), /neither a number nor a share/);
  assert.throws(() => planBatches(["110%"], 5), /neither a number nor a share/);
});

test.run();
