import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loginFor, readNetrc } from "../../../lib/fetch/netrc.ts";
import { tempDir } from "../../helpers/tmp.ts";

const text = `# mine
machine a.test
  login me
  password "two words \\" #"   # not this
machine b.test login you password p#w account x
macdef init
machine c.test login no password no

machine C.test login yes password yes
default login anonymous password guest
machine late.test login late password late
`;

test("a host gets its own login, else the default one", () => {
  assert.equal(loginFor(text, "a.test"), { user: "me", password: 'two words " #' });
  assert.equal(loginFor(text, "b.test"), { user: "you", password: "p#w" });
  assert.equal(loginFor(text, "c.test"), { user: "yes", password: "yes" });
  assert.equal(loginFor(text, "late.test"), { user: "late", password: "late" });
  assert.equal(loginFor(text, "other.test"), { user: "anonymous", password: "guest" });
  assert.is(loginFor("machine a.test login me password x", "other.test"), undefined);
});

test("a file that others can read is refused, and none at all is none", async () => {
  const path = join(tempDir(), "netrc");
  const env = { NETRC: path };
  assert.is(await readNetrc(env), "");
  writeFileSync(path, text, { mode: 0o600 });
  assert.is(await readNetrc(env), text);
  chmodSync(path, 0o644);
  const error = await readNetrc(env).catch((e: unknown) => e);
  assert.match((error as Error).message, /others can read/);
});

test.run();
