import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { gitIn } from "../../../lib/git/git.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("a remote's address, such as .gitmodules may name, starts no program", async () => {
  const dir = tempDir();
  const proof = join(dir, "proof");
  const git = gitIn(dir, { nothrow: true });
  assert.not((await git`git ls-remote -- ${`ext::touch ${proof}`}`).ok);
  assert.not(existsSync(proof));
});

test.run();
