import * as assert from "uvu/assert";
import { test } from "uvu";
import { closeStages, stagesIn } from "../../../../lib/hook/runs/run-stages.ts";

const lines = (...events: object[]) => events.map((each) => JSON.stringify(each)).join("\n");
const time = "2026-11-20T10:15:00.000Z";

test("stages begin and end; what does not fit is left out", () => {
  const text = lines(
    { time, name: "pull", at: 0 },
    { time, name: "pull", at: 120, result: "ok", seconds: 1.5 },
    { time, name: "install", result: "ok" },
    { time: "never", name: "x" },
    { time, name: 3 },
    { time, name: "test\u001b[2J", at: -1 },
    { time, name: "no byte", at: 0.5 },
  );
  assert.equal(stagesIn(`{"time":\nnull\n${text}\n{"time":"2026`), [
    {
      ...{ name: "pull", started: time, from: 0 },
      ...{ result: "ok", seconds: 1.5, why: undefined, to: 120 },
    },
    { name: "test [2J", started: time, from: undefined },
    { name: "no byte", started: time, from: undefined },
  ]);
  const many = Array.from({ length: 1000 }, (_, n) => ({ time, name: `s${n}` }));
  assert.is(stagesIn(lines(...many)).length, 200);
  assert.is(stagesIn(lines({ time, name: "a" }, { time, name: "a", result: "super" }))[0]?.result, "failed");
});

test("a stage that is under way when its run ends, ends with it", () => {
  const now = new Date("2026-11-20T10:15:04.000Z");
  const open = stagesIn(lines({ time, name: "test", at: 7 }));
  assert.equal(closeStages(open, { result: "cancelled", now, size: 50 }), [
    { name: "test", started: time, from: 7, result: "cancelled", seconds: 4, to: 50 },
  ]);
});

test.run();
