// A version that a former launchfit recorded with the bytes of another, while the app runs.
import { cpSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { waitFor } from "../helpers/wait.ts";

test("the right bytes of the version that runs are an update, with its health check, and an undo has where to go", async () => {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher);
  const path = join(app.folder, ".launchfit", "state.json");
  const state = JSON.parse(readFileSync(path, "utf8"));
  state.versions["2"] = { ...state.versions["1"], signedSha256: false };
  state.etags = {};
  writeFileSync(path, JSON.stringify(state));
  const releases = join(app.folder, "releases");
  cpSync(join(releases, "my-app-1"), join(releases, "my-app-2"), { recursive: true });
  rmSync(join(app.folder, "current"));
  symlinkSync("releases/my-app-2", join(app.folder, "current"));
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1 under the name of 2" });
  await publisher.publish("2", webApp("2"));
  const { ok, error } = await app.control("check");
  assert.is(ok, true, error ?? "");
  await waitFor(async () => (await app.ask()) === "2", { what: "the right version 2" });
  assert.is(app.current(), "releases/my-app-2");
  assert.match(running.output(), /update 2\.[0-9a-f]{8} → 2|update 2 → 2/);
  assert.is((await app.control("check")).ok, true);
  await running.stop();
  await publisher.close();
});

test.run();
