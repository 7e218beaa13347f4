import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseCloudinary } from "../../../lib/downloads/cloudinary.ts";
import { formatEntry } from "../../../lib/downloads/manifest.ts";

const prefix = "https://res.cloudinary.com/demo/image/upload";
const lines = (text: string) => {
  const { entries, faults } = parseCloudinary(text, "cloudinary.txt");
  assert.equal(faults, []);
  return entries.map(formatEntry);
};
const faults = (text: string) =>
  parseCloudinary(text, "cloudinary.txt").faults.map(({ where, reason }) => `${where}: ${reason}`);

test("a list makes one picture a value, with the value in the path", () => {
  assert.equal(lines(`${prefix}\nv1312461204/sample.jpg c_scale,w_{320,640,1280}/q_auto img/sample-{}.jpg`), [
    `${prefix}/c_scale,w_320/q_auto/v1312461204/sample.jpg img/sample-320.jpg`,
    `${prefix}/c_scale,w_640/q_auto/v1312461204/sample.jpg img/sample-640.jpg`,
    `${prefix}/c_scale,w_1280/q_auto/v1312461204/sample.jpg img/sample-1280.jpg`,
  ]);
});

test("several lists make all combinations, the version goes to each, the path's extension is asked for", () => {
  assert.equal(lines(`${prefix}/\nv1/sample.jpg#2 c_fill,w_{400,800},h_{300,600} img/s-{1}x{2}.webp`), [
    `${prefix}/c_fill,w_400,h_300/v1/sample.webp#2 img/s-400x300.webp`,
    `${prefix}/c_fill,w_400,h_600/v1/sample.webp#2 img/s-400x600.webp`,
    `${prefix}/c_fill,w_800,h_300/v1/sample.webp#2 img/s-800x300.webp`,
    `${prefix}/c_fill,w_800,h_600/v1/sample.webp#2 img/s-800x600.webp`,
  ]);
});

test("a dash is no transformation, and a path's spaces count", () => {
  assert.equal(lines(`# people\n\n${prefix}\npeople/ada.png - img/ada l.png\na.b/raw - raw`), [
    `${prefix}/people/ada.png img/ada l.png`,
    `${prefix}/a.b/raw raw`,
  ]);
});

test("a new prefix holds for the lines below it", () => {
  assert.equal(lines("https://one.test\na.png - a.png\nhttps://two.test/x\nb.png - b.png"), [
    "https://one.test/a.png a.png",
    "https://two.test/x/b.png b.png",
  ]);
});

test("every wrong line is named", () => {
  for (const [line, reason] of [
    ["a.jpg w_{1,2} img.jpg", /list 1 of the transformation has no place/],
    ["a.jpg w_{1,2},h_{3,4} img-{1}.jpg", /list 2/],
    ["a.jpg w_{1,2},h_{3,4} img-{}.jpg", /could be any of 2/],
    ["a.jpg w_1 img-{}.jpg", /no list/],
    ["a.jpg w_{1,2} img-{3}.jpg", /no list/],
    ["a.jpg w_{1,} img-{}.jpg", /empty value/],
    ["a.jpg w_{1 img.jpg", /no partner/],
    ["a.jpg f_auto,w_1 img.jpg", /f_auto/],
    ["a.jpg w_1/f_auto/q_1 img.jpg", /f_auto/],
    ["a.jpg f_{auto,png} img-{}.jpg", /f_auto/],
    ["a.jpg w_1", /no path/],
    ["a.jpg w_1 ../x.jpg", /leaves the folder/],
    ["https://a.test/a.jpg - x.jpg", /whole URL/],
    ["a.jpg w_1#2 x.jpg", /\? or #/],
    ["nonsense", /neither a prefix \(an http/],
  ] as const) {
    const found = faults(`${prefix}\n${line}`);
    assert.is(found.length, 1, line);
    assert.match(found[0] ?? "", reason, line);
    assert.ok(found[0]?.startsWith("cloudinary.txt:2: "), line);
  }
  assert.match(faults("a.jpg - a.jpg").join(), /cloudinary\.txt:1: no prefix above/);
});

test.run();
