import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { y } from "../../../lib/config/yaml.ts";
import { StateFile } from "../../../lib/files/state-file.ts";
import { tempDir } from "../../helpers/tmp.ts";

const schema = y.object({
  at: y.number(),
  hosts: y.record(y.list(y.string())),
  note: y.optional(y.string()),
});

test("what is remembered is read back as it was; nothing is remembered before", async () => {
  const file = new StateFile(join(tempDir(), "state.json"), schema, { mode: 0o600 });
  assert.is(await file.read(), undefined);
  const state = { at: 3, hosts: { "a.example": ["one", "1.10"], __proto: [] }, note: undefined };
  await file.write(state);
  assert.is(JSON.stringify(await file.read()), JSON.stringify(state));
  assert.is(statSync(file.path).mode & 0o777, 0o600);
  await file.remove();
  assert.is(await file.read(), undefined);
});

test("what is the same is not written again, and of several writes the last one stays", async () => {
  const folder = tempDir();
  const file = new StateFile(join(folder, "state.json"), schema);
  await file.write({ at: 1, hosts: {}, note: "é" });
  const { ino } = statSync(file.path);
  await file.write({ at: 1, hosts: {}, note: "é" });
  assert.is(statSync(file.path).ino, ino);
  await Promise.all([2, 3, 4, 5].map((at) => file.write({ at, hosts: {}, note: undefined })));
  assert.is((await file.read())?.at, 5);
  assert.equal(readdirSync(folder), ["state.json"]);
});

for (const [what, text] of [
  ["is not JSON", '{"at": 1'],
  ["has a value of another type", '{"at": "soon", "hosts": {}}'],
  ["lacks a key", '{"at": 1}'],
] as const)
  test(`a file that ${what} counts as none, or is an error with advice where it must not be passed over`, async () => {
    const path = join(tempDir(), "state.json");
    writeFileSync(path, text);
    assert.is(await new StateFile(path, schema).read(), undefined);
    const strict = new StateFile(path, schema, { damaged: "put it back, or remove it to begin anew" });
    const message = await strict.read().then(JSON.stringify, ({ message }: Error) => message);
    assert.match(message, `${path} is damaged (`);
    assert.match(message, "); put it back, or remove it to begin anew");
    assert.is(readFileSync(path, "utf8"), text);
  });

test.run();
