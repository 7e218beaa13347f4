import * as assert from "uvu/assert";
import { test } from "uvu";
import { Refusals } from "../../../../lib/hook/telemetry/telemetry.ts";
import { waitFor } from "../../../helpers/wait.ts";

test("the first refusals of a window are a line each, all others one line with their count; then it begins anew", async () => {
  const said: string[] = [];
  const refusals = new Refusals((text) => said.push(text), { lines: 2, window: 200 });
  refusals.add(401, "a");
  refusals.add(401, "b");
  for (let n = 0; n < 1000; n++) refusals.add(n % 4 ? 401 : 413, `c${n}`);
  assert.equal(said, ["a", "b"]);
  await waitFor(() => said.length > 2);
  assert.is(said[2], "1000 more unproved deliveries were refused: 250 with 413, 750 with 401");
  refusals.add(400, "d");
  assert.is(said[3], "d");
  refusals.close();
  assert.is(said.length, 4);
});

test.run();
