import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatDuration, formatSize, parseDuration, parseSize } from "../../../lib/core/units.ts";

test("durations are read in the short and in the long form", () => {
  const cases: [string, number][] = [
    ["90s", 90_000],
    ["15m", 900_000],
    ["2h", 7_200_000],
    ["1d", 86_400_000],
    ["1h30m", 5_400_000],
    ["0.5s", 500],
    ["250ms", 250],
    ["15 minutes 32 seconds", 932_000],
    ["1 hour, 2 minutes", 3_720_000],
  ];
  for (const [text, ms] of cases) assert.is(parseDuration(text), ms, text);
});

test("what is no duration is refused with examples, a bare number too", () => {
  for (const text of ["", "10", "m", "10 parsecs", "10s!", "-5s", "s10"]) {
    assert.throws(() => parseDuration(text), /is not a duration; write 90s/, text);
  }
});

test("sizes are powers of 1024, and a bare number is bytes", () => {
  const cases: [string, number][] = [
    ["10k", 10_240],
    ["5M", 5_242_880],
    ["2G", 2_147_483_648],
    ["123", 123],
    ["1.5k", 1536],
    ["1MiB", 1_048_576],
  ];
  for (const [text, bytes] of cases) assert.is(parseSize(text), bytes, text);
  for (const text of ["", "k", "10 apples", "-1"]) {
    assert.throws(() => parseSize(text), /is not a size/, text);
  }
});

test("durations and sizes are shown as people read them", () => {
  assert.is(formatDuration(840), "0.8s");
  assert.is(formatDuration(42_000), "42s");
  assert.is(formatDuration(200_000), "3m 20s");
  assert.is(formatDuration(185_000), "3m 05s");
  assert.is(formatDuration(600_000), "10m");
  assert.is(formatDuration(7_500_000), "2h 05m");
  assert.is(formatDuration(90_000_000), "1d 1h");
  assert.is(formatSize(512), "512 B");
  assert.is(formatSize(10_035), "9.8 kB");
  assert.is(formatSize(25 * 1024 * 1024), "25 MB");
});

test.run();
