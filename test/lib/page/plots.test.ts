import { test } from "uvu";
import * as assert from "uvu/assert";
import { stageBar } from "../../../lib/page/plots.ts";

test("the bar of stages is full also when it is drawn for a time before the newest stage began", () => {
  const start = Date.parse("2026-11-20T10:15:03Z");
  const stages = [
    { name: "install", result: "ok", started: new Date(start).toISOString(), seconds: 1 },
    { name: "build", started: new Date(start + 1000).toISOString() },
  ] as const;
  // what all who follow are sent is made for whole tens of seconds
  const { text = "" } = stageBar(stages, start - 3000) ?? {};
  const widths = [...text.matchAll(/ y="0" width="([\d.]+)"/g)].map(([, width]) => Number(width));
  assert.ok(widths.length === 2 && widths.every((width) => width > 400), text);
});

test.run();
